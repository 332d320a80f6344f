# How Horovod is compiled: without debug information, which takes a quarter of the compilers' time.
# Horovod itself makes -O3 of this -O2.
set(CMAKE_C_FLAGS_RELWITHDEBINFO "-O2 -DNDEBUG" CACHE STRING "")
set(CMAKE_CXX_FLAGS_RELWITHDEBINFO "-O2 -DNDEBUG" CACHE STRING "")
# Of a build for GPUs: NCCL lies beside it, as NVIDIA's wheel, and TensorFlow takes the same one.
if(DEFINED ENV{HOROVOD_GPU_OPERATIONS})
    set(CMAKE_BUILD_RPATH "$ORIGIN/../../nvidia/nccl/lib")
endif()
