// What Python calls in a compiled simulator. This file is appended to the C++ that CXXRTL wrote; it
// knows ports by name and streams by three ports each, and nothing of any design.

#include <cstdint>
#include <cstring>

namespace {

struct Simulation {
    cxxrtl_handle handle;
    cxxrtl_object *clock;
};

// A signal of the design. Bits lie in chunks of 32, lowest first.
size_t words(const cxxrtl_object *port) { return (port->width + 31) / 32; }

bool is_one(const cxxrtl_object *port) { return port->curr[0] & 1; }

void put(cxxrtl_object *port, const uint32_t *bits) {
    if (port->next != nullptr) std::memcpy(port->next, bits, 4 * words(port));
}

void put_bit(cxxrtl_object *port, bool bit) {
    uint32_t word = bit;
    put(port, &word);
}

// Combinational logic follows what was put; no register changes.
void settle(Simulation *s) { cxxrtl_step(s->handle); }

// One rising edge of the clock, and logic settled after it.
void tick(Simulation *s) {
    if (s->clock == nullptr) return;
    put_bit(s->clock, true);
    cxxrtl_step(s->handle);
    put_bit(s->clock, false);
    cxxrtl_step(s->handle);
}

// xorshift64*: Vigna, "An experimental exploration of Marsaglia's xorshift generators, scrambled"
struct Random {
    uint64_t state;
    explicit Random(uint64_t seed) : state(seed * 0x9E3779B97F4A7C15ull + 1) {
        if (state == 0) state = 1;
    }
    // true with probability share / 65536
    bool chance(uint32_t share) {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        return ((state * 0x2545F4914F6CDD1Dull) >> 48) < share;
    }
};

}  // namespace

extern "C" {

// One stream of a run. `share` of 65536 is how often the driver is willing to transfer.
struct fptt_stream {
    const char *valid, *ready, *payload;
    uint32_t *data;    // [count][words of the payload]
    uint32_t *cycles;  // [count]: the cycle in which each was transferred
    uint64_t count;
    uint32_t share;
    uint64_t done;     // out: transferred
    uint64_t surplus;  // out: offered by the design beyond `count`
    uint64_t broken;   // out: offers that were withdrawn or changed before they were taken
};

void *fptt_create(void) {
    Simulation *s = new Simulation;
    s->handle = cxxrtl_create(cxxrtl_design_create());
    size_t parts = 0;
    s->clock = cxxrtl_get_parts(s->handle, "clk", &parts);
    if (s->clock != nullptr) put_bit(s->clock, false);
    settle(s);
    return s;
}

void fptt_destroy(void *simulation) {
    Simulation *s = static_cast<Simulation *>(simulation);
    cxxrtl_destroy(s->handle);
    delete s;
}

void *fptt_find(void *simulation, const char *name) {
    size_t parts = 0;
    cxxrtl_object *object = cxxrtl_get_parts(static_cast<Simulation *>(simulation)->handle, name, &parts);
    return parts == 1 ? object : nullptr;
}

struct fptt_names {
    void (*visit)(void *data, const char *name, uint32_t type, uint32_t flags, uint64_t width,
                  uint64_t depth);
    void *data;
};

void fptt_list(void *simulation, struct fptt_names *names) {
    cxxrtl_enum(static_cast<Simulation *>(simulation)->handle, names,
                [](void *given, const char *name, cxxrtl_object *object, size_t parts) {
                    fptt_names *to = static_cast<fptt_names *>(given);
                    if (parts == 1)
                        to->visit(to->data, name, object->type, object->flags, object->width,
                                  object->depth);
                });
}

void fptt_put(void *object, const uint32_t *bits) { put(static_cast<cxxrtl_object *>(object), bits); }

void fptt_get(void *object, uint32_t *bits) {
    cxxrtl_object *port = static_cast<cxxrtl_object *>(object);
    std::memcpy(bits, port->curr, 4 * words(port));
}

// The words of a memory, to read and to write between clock edges.
uint32_t *fptt_memory(void *object) { return static_cast<cxxrtl_object *>(object)->curr; }

void fptt_settle(void *simulation) { settle(static_cast<Simulation *>(simulation)); }

void fptt_tick(void *simulation, uint64_t cycles) {
    for (uint64_t i = 0; i < cycles; i++) tick(static_cast<Simulation *>(simulation));
}

// Clocks until the lowest bit of a port is `value`; returns the cycles, or `limit` + 1.
uint64_t fptt_wait(void *simulation, void *object, uint32_t value, uint64_t limit) {
    const cxxrtl_object *port = static_cast<cxxrtl_object *>(object);
    settle(static_cast<Simulation *>(simulation));
    for (uint64_t cycle = 0; cycle <= limit; cycle++) {
        if (is_one(port) == (value != 0)) return cycle;
        tick(static_cast<Simulation *>(simulation));
    }
    return limit + 1;
}

// Feeds and drains streams with random pauses on both sides, until all is transferred and `drain`
// more cycles have passed, or `limit` cycles. Returns the cycles, or UINT64_MAX for an unknown port.
uint64_t fptt_streams(void *simulation, struct fptt_stream *in, uint64_t inputs,
                      struct fptt_stream *out, uint64_t outputs, uint64_t seed, uint64_t drain,
                      uint64_t limit) {
    Simulation *s = static_cast<Simulation *>(simulation);
    struct Side {
        fptt_stream *stream;
        cxxrtl_object *valid, *ready, *payload;
        uint32_t *held;  // of an output: what was offered in the cycle before
        bool offered;
    };
    Side *sides = new Side[inputs + outputs];
    uint64_t total = inputs + outputs, cycle = 0, extra = 0;
    bool known = true;
    for (uint64_t i = 0; i < total; i++) {
        fptt_stream *stream = i < inputs ? &in[i] : &out[i - inputs];
        Side &side = sides[i];
        side.stream = stream;
        side.valid = static_cast<cxxrtl_object *>(fptt_find(s, stream->valid));
        side.ready = static_cast<cxxrtl_object *>(fptt_find(s, stream->ready));
        side.payload = static_cast<cxxrtl_object *>(fptt_find(s, stream->payload));
        known = known && side.valid && side.ready && side.payload;
        side.offered = false;
        side.held = side.payload ? new uint32_t[words(side.payload)] : nullptr;
        stream->done = stream->surplus = stream->broken = 0;
    }
    Random random(seed);
    for (; known && cycle < limit; cycle++) {
        bool all = true;
        for (uint64_t i = 0; i < total; i++) {
            Side &side = sides[i];
            fptt_stream *stream = side.stream;
            bool more = stream->done < stream->count;
            all = all && !more;
            bool willing = random.chance(stream->share);
            if (i < inputs) {
                // an offer stands until it is taken
                side.offered = more && (side.offered || willing);
                if (side.offered)
                    put(side.payload, stream->data + stream->done * words(side.payload));
                put_bit(side.valid, side.offered);
            } else {
                put_bit(side.ready, more && willing);
            }
        }
        if (all && extra++ >= drain) break;
        settle(s);
        for (uint64_t i = 0; i < total; i++) {
            Side &side = sides[i];
            fptt_stream *stream = side.stream;
            bool valid = is_one(side.valid), moves = valid && is_one(side.ready);
            if (i >= inputs) {
                size_t bytes = 4 * words(side.payload);
                if (side.offered && (!valid || std::memcmp(side.held, side.payload->curr, bytes)))
                    stream->broken++;
                side.offered = valid && !moves;
                if (valid) std::memcpy(side.held, side.payload->curr, bytes);
                if (valid && stream->done == stream->count) stream->surplus++;
                if (moves)
                    std::memcpy(stream->data + stream->done * words(side.payload),
                                side.payload->curr, bytes);
            } else if (moves) {
                side.offered = false;
            }
            if (moves) stream->cycles[stream->done++] = static_cast<uint32_t>(cycle);
        }
        if (s->clock) {
            put_bit(s->clock, true);
            cxxrtl_step(s->handle);
            put_bit(s->clock, false);
        }
    }
    if (known) settle(s);
    for (uint64_t i = 0; i < total; i++) {
        if (known) put_bit(i < inputs ? sides[i].valid : sides[i].ready, false);
        delete[] sides[i].held;
    }
    delete[] sides;
    if (known) settle(s);
    return known ? cycle : UINT64_MAX;
}

}  // extern "C"
