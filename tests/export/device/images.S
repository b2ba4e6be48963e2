/* The test images, preceded by their number in 32 bits. */
    .section .images, "a"
    .balign 4
    .global images
images:
    .incbin "images.bin"
