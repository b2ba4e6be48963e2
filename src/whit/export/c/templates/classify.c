int ${name}_classify(const uint8_t pixels[$pixels], $logit logits[$classes])
{
$steps
    int best = 0;
    for (int k = 1; k < $classes; k++)
        if (logits[k] > logits[best])
            best = k;
    return best;
}
