int ${name}_classify(const uint8_t pixels[$pixels], $logit scores[$classes])
{
$steps
    int best = 0;
    for (int k = 1; k < $classes; k++)
        if (scores[k] > scores[best])
            best = k;
    return best;
}
