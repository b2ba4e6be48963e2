/*
 * Example: classifies raw images from standard input and prints the name of each predicted class.
 * An image is $pixels bytes: $layout.
 */
#include <stdio.h>

#include "$name.h"

int main(void)
{
    static uint8_t pixels[${guard}_HEIGHT * ${guard}_WIDTH * ${guard}_CHANNELS];
    static $logit logits[${guard}_NUM_CLASSES];
    while (fread(pixels, 1, sizeof pixels, stdin) == sizeof pixels)
        puts(${name}_class_names[${name}_classify(pixels, logits)]);
    return 0;
}
