/*
 * $title: $kind, made by whit. Not to be edited.
 *
$needs
 */
#ifndef ${guard}_H
#define ${guard}_H

#include <stdint.h>

/*
 * Returns the class of an image, 0 to $last. Not to be called by two at once.
 *
 * pixels: $layout, 0 to 255, as in the data set
 * $output
 *
 * classes:
$labels
 */
int ${name}_classify(const uint8_t pixels[$pixels], $logit scores[$classes]);

#endif
