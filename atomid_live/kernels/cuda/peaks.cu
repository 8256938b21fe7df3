// Peaks of the network's map. A peak is undecided (1), then kept (2) or suppressed (3); decisions once taken are right in any
// order of threads, because they rest on decided neighbours only: the result is that of the greedy rule.

// Whether pixel a is preferred to b: greater, or equal and earlier in raster order.
__device__ bool preferred(float a, int place_a, float b, int place_b) { return a > b || (a == b && place_a < place_b); }

extern "C" __global__ void local_maxima(const float* map, int* state, const double* P, int n) {
    int i = INDEX;
    if (i >= n) return;
    int pitch = (int)P[P_MAP_PITCH], rows = (int)P[P_MAP_ROWS], cols = (int)P[P_MAP_COLS];
    int r = i / pitch, c = i % pitch;
    float v = map[i];
    bool top = r < rows && c < cols && (double)v > P[P_FLOOR];
    for (int k = -1; top && k <= 1; ++k)
        for (int l = -1; l <= 1; ++l) {
            int y = r + k, x = c + l, at = y * pitch + x;
            if ((k || l) && y >= 0 && x >= 0 && y < rows && x < cols && preferred(map[at], at, v, i)) top = false;
        }
    state[i] = top ? 1 : 0;
}

// One peak against the preferred ones closer than `radius`: 2 when all of them are suppressed, 3 when one is kept.
__device__ int decide(const float* map, const volatile int* state, const double* P, int i) {
    int pitch = (int)P[P_MAP_PITCH], rows = (int)P[P_MAP_ROWS], cols = (int)P[P_MAP_COLS];
    double radius = P[P_RADIUS];
    if (!(radius > 1.0)) return 2;
    int reach = (int)ceil(radius), r = i / pitch, c = i % pitch, answer = 2;
    for (int y = r > reach ? r - reach : 0; y <= r + reach && y < rows; ++y)
        for (int x = c > reach ? c - reach : 0; x <= c + reach && x < cols; ++x) {
            int at = y * pitch + x, other = state[at];
            if (!other || at == i || (double)((y - r) * (y - r) + (x - c) * (x - c)) >= radius * radius) continue;
            if (!preferred(map[at], at, map[i], i)) continue;
            if (other == 2) return 3;
            if (other == 1) answer = 1;
        }
    return answer;
}

extern "C" __global__ void suppress(const float* map, int* state, int* undecided, const double* P, int count, int n) {
    int i = INDEX;
    if (i >= n || state[i] != 1) return;
    int answer = decide(map, state, P, i);
    if (answer != 1) state[i] = answer;
    else if (count) atomicAdd(undecided, 1);
}

// Long chains of peaks, each waiting for a better one, are rare: one thread ends them, and does nothing when there are none.
extern "C" __global__ void suppress_rest(const float* map, int* state, const int* undecided, const double* P, int size, int n) {
    if (INDEX >= n || *undecided == 0) return;
    for (bool waiting = true; waiting;) {
        waiting = false;
        for (int i = 0; i < size; ++i) {
            if (state[i] != 1) continue;
            int answer = decide(map, state, P, i);
            if (answer != 1) state[i] = answer;
            else waiting = true;
        }
    }
}

extern "C" __global__ void mark_kept(const int* state, int* mark, int n) {
    int i = INDEX;
    if (i < n) mark[i] = state[i] == 2;
}

// `rank` is the running sum of `mark`: kept peaks go to their rank, in raster order; S_FOUND may exceed the room.
extern "C" __global__ void list_peaks(
    const float* map, const int* mark, const int* rank, int* where, float* height, double* S, int room, int n) {
    int i = INDEX;
    if (i >= n) return;
    if (i == n - 1) S[S_FOUND] = rank[i];
    int k = rank[i] - 1;
    if (mark[i] && k < room) {
        where[k] = i;
        height[k] = map[i];
    }
}

// Straight lines between knots, constant outside.
__device__ double between(const double* x, const double* y, int count, double at) {
    if (!(at > x[0])) return y[0];
    for (int k = 1; k < count; ++k)
        if (at <= x[k]) return y[k - 1] + (y[k] - y[k - 1]) * (at - x[k - 1]) / (x[k] - x[k - 1]);
    return y[count - 1];
}

// `falling`: heights in descending order. The quantile lies on the straight line between the two nearest ranks.
extern "C" __global__ void frame_threshold(const float* falling, const double* P, double* S, int room, int n) {
    if (INDEX >= n) return;
    int count = (int)S[S_FOUND] < room ? (int)S[S_FOUND] : room;
    double typical = P[P_TYPICAL];
    if (count > 0) {
        double place = P[P_QUANTILE] * (count - 1);
        int low = (int)place, high = low + 1 < count ? low + 1 : low;
        double a = falling[count - 1 - low], b = falling[count - 1 - high];
        typical = a + (b - a) * (place - low);
    }
    S[S_THRESHOLD] = between(P + P_TYPICAL, P + P_LEAST, (int)P[P_KNOT_COUNT], typical);
}

extern "C" __global__ void score_peaks(
    const float* height, double* score, int* mark, const double* P, const double* S, int n) {
    int k = INDEX;
    if (k >= n) return;
    mark[k] = 0;
    if (k >= (int)S[S_FOUND]) return;
    double least = S[S_THRESHOLD], h = height[k];
    double s = h <= least ? (least > 0.0 ? 0.5 * (h > 0.0 ? h : 0.0) / least : 0.5)
                          : (h < 1.0 ? 0.5 + 0.5 * (h - least) / (1.0 - least) : 1.0);
    score[k] = s;
    mark[k] = s >= P[P_LEAST_SCORE];
}

__device__ double vertex(double before, double at, double after) {
    double curve = before + after - 2.0 * at;
    double shift = curve < 0.0 ? 0.5 * (before - after) / curve : 0.0;
    return shift < -0.5 ? -0.5 : (shift > 0.5 ? 0.5 : shift);
}

// A peak of the map in pixels of the network's input, by a parabola along each axis; at the border the pixel itself.
__device__ void place_peak(const float* map, const double* P, int r, int c, double* y, double* x) {
    int pitch = (int)P[P_MAP_PITCH], rows = (int)P[P_MAP_ROWS], cols = (int)P[P_MAP_COLS], i = r * pitch + c;
    double v = r, u = c, stride = P[P_STRIDE];
    if (r > 0 && r < rows - 1) v += vertex(map[i - pitch], map[i], map[i + pitch]);
    if (c > 0 && c < cols - 1) u += vertex(map[i - 1], map[i], map[i + 1]);
    *y = stride * v + 0.5 * (stride - 1.0);
    *x = stride * u + 0.5 * (stride - 1.0);
}

// Peaks that score enough become starts of the fit, in pixels of the frame.
extern "C" __global__ void place_starts(
    const float* map, const int* where, const double* score, const int* mark, const int* rank, double* start, double* start_score,
    const double* P, double* S, int n) {
    int k = INDEX;
    if (k >= n) return;
    if (k == n - 1) S[S_COUNT] = rank[k];
    if (!mark[k]) return;
    int pitch = (int)P[P_MAP_PITCH], to = rank[k] - 1;
    double y, x;
    place_peak(map, P, where[k] / pitch, where[k] % pitch, &y, &x);
    start[2 * to] = (y + 0.5) / P[P_FACTOR_Y] - 0.5;
    start[2 * to + 1] = (x + 0.5) / P[P_FACTOR_X] - 0.5;
    start_score[to] = score[k];
}
