// Stands in for sys/epoll.h, which one source of Gloo includes for its loop: see horovod.py.
// Where another thread holds a connection, the loop finds its event again at once, and again. With
// no core to spare the holder waits for the end of the loop's turn, 3 ms in every exchange: so the
// loop rests for a moment.
// https://github.com/pytorch/gloo/issues/246

#pragma once
#include_next <sys/epoll.h>
#include <time.h>

static inline int resting_epoll_wait(int epoll, epoll_event* found, int most, int milliseconds) {
  static thread_local bool finds_at_once = false;
  const int count = epoll_wait(epoll, found, most, 0);
  if (count == 0) {
    finds_at_once = false;
    return epoll_wait(epoll, found, most, milliseconds);
  }
  if (finds_at_once) {
    // Of at least that long; the kernel makes some 60 us of it.
    const timespec moment = {0, 5000};
    nanosleep(&moment, nullptr);
  }
  finds_at_once = true;
  return count;
}

#define epoll_wait resting_epoll_wait
