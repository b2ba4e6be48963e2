/* The images of a test, a count in 32 bits before them. */
    .section .images, "a"
    .balign 4
    .global images
images:
    .incbin "images.bin"
