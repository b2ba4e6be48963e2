/* Convert the output of the last operation to logits. */
static void emit_logits(const uint8_t *in, int count, int32_t factor, int64_t offset, int shift,
                        int32_t *out)
{
    for (int i = 0; i < count; i++)
        out[i] = logit_of((int64_t)in[i] * factor + offset, shift);
}
