/* A map lies in memory line by line, the channels of one place side by side. */
struct map {
    int height, width, channels;
};

/* What slides over a map: its size, its steps, the places around the map, the distance of taps. */
struct window {
    int height, width, step_y, step_x, around_y, around_x, apart_y, apart_x;
};
