/* Fully connected layer. weight[input][output], bias[output]. */
static void linear(const float *in, int inputs, const float *weight, const float *bias, float *out,
                   int outputs)
{
    for (int o = 0; o < outputs; o++)
        out[o] = bias[o];
    for (int i = 0; i < inputs; i++)
        for (int o = 0; o < outputs; o++)
            out[o] += in[i] * weight[i * outputs + o];
}
