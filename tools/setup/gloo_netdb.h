// Stands in for netdb.h, which one source of Gloo includes to look for its own address: horovod.py.
// For its process sets, one of which has all ranks, Horovod forgets HOROVOD_GLOO_IFACE, and Gloo
// asks for the address of this machine's name. That may lead to a network that nobody meant, or to
// loopback on one machine of many, or nowhere, which ended the process by SIGSEGV. So the name by
// which Horovod knows the machine comes first, and one without an address is an error.

#pragma once
#include_next <netdb.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static inline bool has_address(const char* name) {
  addrinfo* found = nullptr;
  if (getaddrinfo(name, nullptr, nullptr, &found) != 0) return false;
  freeaddrinfo(found);
  return true;
}

static inline int gethostname_with_address(char* name, size_t size) {
  const char* told = getenv("HOROVOD_HOSTNAME");
  if (told != nullptr && strlen(told) < size && has_address(told)) {
    strcpy(name, told);
    return 0;
  }
  const int code = gethostname(name, size);
  return code == 0 && has_address(name) ? 0 : -1;
}

#define gethostname gethostname_with_address
