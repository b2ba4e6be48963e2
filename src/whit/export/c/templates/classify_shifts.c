static uint8_t moved[$pixels];

/* The scores of the image as it lies in `pixels`. */
static void look(const uint8_t pixels[$pixels], $logit scores[$classes])
{
$steps
}

int ${name}_classify(const uint8_t pixels[$pixels], $logit scores[$classes])
{
    static const int8_t shifts[$count][2] = {$shifts};
    $sum sums[$classes] = {0};
    for (int i = 0; i < $count; i++) {
        move(pixels, $shape, shifts[i][0], shifts[i][1], moved);
        look(moved, scores);
        for (int k = 0; k < $classes; k++)
            sums[k] += scores[k];
    }
    for (int k = 0; k < $classes; k++)
        scores[k] = $mean;
    int best = 0;
    for (int k = 1; k < $classes; k++)
        if (scores[k] > scores[best])
            best = k;
    return best;
}
