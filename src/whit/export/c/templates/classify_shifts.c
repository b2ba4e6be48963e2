static uint8_t shifted[$pixels];

/* One forward pass, without test-time augmentation. */
static void classify_once(const uint8_t pixels[$pixels], $logit logits[$classes])
{
$steps
}

int ${name}_classify(const uint8_t pixels[$pixels], $logit logits[$classes])
{
    static const int8_t shifts[$count][2] = {$shifts}; /* right, down */
    $sum sums[$classes] = {0};
    for (int i = 0; i < $count; i++) {
        shift_image(pixels, $shape, shifts[i][0], shifts[i][1], shifted);
        classify_once(shifted, logits);
        for (int k = 0; k < $classes; k++)
            sums[k] += logits[k];
    }
    for (int k = 0; k < $classes; k++)
        logits[k] = $mean;
    int best = 0;
    for (int k = 1; k < $classes; k++)
        if (logits[k] > logits[best])
            best = k;
    return best;
}
