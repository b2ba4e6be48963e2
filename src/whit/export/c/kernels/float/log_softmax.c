/* Log-softmax; the maximum is subtracted first to prevent overflow. */
static void log_softmax(const float *in, int count, float *out)
{
    float maximum = in[0], sum = 0;
    for (int i = 1; i < count; i++)
        maximum = in[i] > maximum ? in[i] : maximum;
    for (int i = 0; i < count; i++)
        sum += expf(in[i] - maximum);
    for (int i = 0; i < count; i++)
        out[i] = in[i] - maximum - logf(sum);
}
