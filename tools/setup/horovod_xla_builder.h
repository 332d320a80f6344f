// Stands in for tensorflow/compiler/xla/client/xla_builder.h, which has moved: see horovod.py.
// One source of Horovod includes it, and so it is compiled once.

#if HAVE_GPU
#include <cuda_runtime.h>
#include "tensorflow/compiler/xla/stream_executor/stream.h"

// Horovod calls this of TensorFlow for CUDA's stream behind one of its own. TensorFlow has it no more,
// and finds the stream like this (tensorflow/core/util/gpu_kernel_helper.h).
namespace stream_executor {
namespace gpu {
cudaStream_t AsGpuStreamValue(Stream* stream) {
  return static_cast<cudaStream_t>(stream->platform_specific_handle().stream);
}
}  // namespace gpu
}  // namespace stream_executor
#endif

// The rest of that source is Horovod inside XLA, which we never use and which does not compile.
#undef HAVE_GPU
