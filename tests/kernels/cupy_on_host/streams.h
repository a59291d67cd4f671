// Devices whose memory is the host's: streams are threads with a queue each, ordered as CUDA orders them.
#ifndef CUPY_ON_HOST_STREAMS_H
#define CUPY_ON_HOST_STREAMS_H

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <thread>
#include <utility>
#include <vector>

namespace on_host {

constexpr int MOST_DEVICES = 4;
constexpr unsigned LATE = 100;  // microseconds before an operation starts: what nobody waits for is not there yet

struct Operation {
    std::function<void()> run;
    std::vector<std::shared_ptr<Operation>> after;
    bool done = false;
    std::chrono::steady_clock::time_point when;
};
typedef std::shared_ptr<Operation> Pending;

// never destroyed: threads wait on them when the process ends
inline std::mutex &gate = *new std::mutex;
inline std::condition_variable &changed = *new std::condition_variable;

struct Stream {
    const int device;
    const bool blocking;  // ordered against the default stream
    std::deque<Pending> queue;
    Pending last;
    bool closed = false;

    Stream(int device, bool blocking) : device(device), blocking(blocking)
    {
        std::thread([this] { work(); }).detach();
    }

    void work()
    {
        std::unique_lock<std::mutex> lock(gate);
        for (;;) {
            changed.wait(lock, [this] { return closed || !queue.empty(); });
            if (queue.empty()) break;
            const Pending operation = queue.front();
            changed.wait(lock, [&] {
                for (const Pending &other : operation->after)
                    if (!other->done) return false;
                return true;
            });
            lock.unlock();
            if (operation->run) {
                usleep(LATE);
                operation->run();
            }
            lock.lock();
            operation->run = nullptr;
            operation->after.clear();
            operation->when = std::chrono::steady_clock::now();
            operation->done = true;
            queue.pop_front();
            changed.notify_all();
        }
        delete this;
    }
};

struct Device {
    Stream *standard;  // the default stream
    std::set<Stream *> streams;
};

inline int device_count()
{
    const char *count = std::getenv("CUPY_ON_HOST_DEVICES");
    return count ? std::min(MOST_DEVICES, std::atoi(count)) : 1;
}

inline thread_local int current = 0;

inline Device &device(int index)
{
    static Device *devices = new Device[MOST_DEVICES]();
    std::lock_guard<std::mutex> lock(gate);
    Device &found = devices[index];
    if (!found.standard) {
        found.standard = new Stream(index, true);
        found.streams.insert(found.standard);
    }
    return found;
}

inline Stream *open_stream(bool blocking)
{
    Device &here = device(current);
    Stream *stream = new Stream(current, blocking);
    std::lock_guard<std::mutex> lock(gate);
    here.streams.insert(stream);
    return stream;
}

inline void close_stream(Stream *stream)
{
    Device &here = device(stream->device);
    std::lock_guard<std::mutex> lock(gate);
    here.streams.erase(stream);
    stream->closed = true;
    changed.notify_all();
}

// The stream of a handle: 0 and 1 are the current device's default stream, 2 is the thread's own.
inline Stream *stream_of(const void *handle)
{
    static thread_local std::map<int, Stream *> own;
    const auto number = reinterpret_cast<std::uintptr_t>(handle);
    if (number > 2) return (Stream *)handle;
    if (number < 2) return device(current).standard;
    Stream *&found = own[current];
    return found ? found : found = open_stream(true);
}

inline Pending enqueue(Stream *stream, std::function<void()> run, const Pending &event = nullptr)
{
    Device &here = device(stream->device);
    std::lock_guard<std::mutex> lock(gate);
    const Pending operation = std::make_shared<Operation>();
    operation->run = std::move(run);
    if (event) operation->after.push_back(event);
    if (stream == here.standard) {
        for (const Stream *other : here.streams)
            if (other != stream && other->blocking && other->last) operation->after.push_back(other->last);
    } else if (stream->blocking && here.standard->last) {
        operation->after.push_back(here.standard->last);
    }
    stream->queue.push_back(operation);
    stream->last = operation;
    changed.notify_all();
    return operation;
}

inline bool is_done(const Pending &operation)
{
    std::lock_guard<std::mutex> lock(gate);
    return !operation || operation->done;
}

inline void wait_for(const Pending &operation)
{
    std::unique_lock<std::mutex> lock(gate);
    changed.wait(lock, [&] { return !operation || operation->done; });
}

inline void wait_for_device(int index)
{
    std::vector<Pending> last;
    Device &here = device(index);
    {
        std::lock_guard<std::mutex> lock(gate);
        for (const Stream *stream : here.streams) last.push_back(stream->last);
    }
    for (const Pending &operation : last) wait_for(operation);
}

// ---- memory --------------------------------------------------------------------------------------------------------

struct Allocation {
    std::size_t size;
    int device;
    bool pinned;
    void *mapped;  // guarded memory's first page
    std::size_t pages;
};

inline std::map<std::uintptr_t, Allocation> &allocations = *new std::map<std::uintptr_t, Allocation>;

inline const Allocation *allocation_of(const void *pointer)
{
    const std::uintptr_t at = reinterpret_cast<std::uintptr_t>(pointer);
    std::lock_guard<std::mutex> lock(gate);
    auto found = allocations.upper_bound(at);
    if (found == allocations.begin()) return nullptr;
    --found;
    return at < found->first + found->second.size ? &found->second : nullptr;
}

// With CUPY_ON_HOST_GUARD, memory ends (to the next 16 bytes) where a page begins that nobody may touch, and nobody may
// touch it once it is free: a kernel that does ends the process.
inline void *allocate(std::size_t size, bool pinned)
{
    static const bool guarded = std::getenv("CUPY_ON_HOST_GUARD") != nullptr;
    const std::size_t page = 4096, whole = std::max<std::size_t>(size, 1);
    Allocation made{whole, current, pinned, nullptr, 0};
    void *pointer = nullptr;
    if (guarded) {
        made.pages = (whole + page - 1) / page + 1;
        made.mapped = mmap(nullptr, made.pages * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (made.mapped == MAP_FAILED) return nullptr;
        char *const end = static_cast<char *>(made.mapped) + (made.pages - 1) * page;
        mprotect(end, page, PROT_NONE);
        pointer = end - (whole + 15) / 16 * 16;
    } else if (posix_memalign(&pointer, 512, whole)) {
        return nullptr;
    }
    std::memset(pointer, 0xA5, whole);  // fresh memory is not zero
    std::lock_guard<std::mutex> lock(gate);
    allocations[reinterpret_cast<std::uintptr_t>(pointer)] = made;
    return pointer;
}

// Memory is free when nothing that was enqueued can still use it.
inline void release(void *pointer)
{
    if (!pointer) return;
    for (int index = 0; index < device_count(); ++index) wait_for_device(index);
    std::unique_lock<std::mutex> lock(gate);
    const auto found = allocations.find(reinterpret_cast<std::uintptr_t>(pointer));
    const Allocation freed = found->second;
    allocations.erase(found);
    lock.unlock();
    if (freed.mapped) mprotect(freed.mapped, freed.pages * 4096, PROT_NONE);
    else std::free(pointer);
}

// Memory of the program itself is read before an asynchronous copy returns, and written before it returns.
inline void copy(void *to, const void *from, std::size_t size, Stream *stream, bool waits)
{
    Pending operation;
    if (!allocation_of(from)) {
        const auto kept = std::make_shared<std::vector<char>>((const char *)from, (const char *)from + size);
        operation = enqueue(stream, [=] { std::memcpy(to, kept->data(), size); });
    } else {
        operation = enqueue(stream, [=] { std::memmove(to, from, size); });
    }
    if (waits || !allocation_of(to)) wait_for(operation);
}

}  // namespace on_host

#endif
