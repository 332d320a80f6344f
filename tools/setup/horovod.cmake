# How Horovod is compiled: without debug information, which takes a quarter of the compilers' time.
# Horovod itself makes -O3 of this -O2.
set(CMAKE_C_FLAGS_RELWITHDEBINFO "-O2 -DNDEBUG" CACHE STRING "")
set(CMAKE_CXX_FLAGS_RELWITHDEBINFO "-O2 -DNDEBUG" CACHE STRING "")
