#!/bin/sh
# Takes out of a virtual environment what no night needs: what Horovod was built with, the tests of
# libraries, and the symbols by which a debugger would read them.
#
#     docker/slim.sh VENV
set -eu
venv=$1
packages=$(echo "$venv"/lib/python3*/site-packages)

rm -rf "$venv/horovod-headers" "$packages/tensorflow/include" "$packages"/nvidia/*/include
# Of these nothing imports its tests; others do, such as h5py.
for library in matplotlib numpy pandas pyarrow scipy sklearn; do
    find "$packages/$library" -type d -name tests -prune -exec rm -rf {} +
done
# They hold a private key.
rm -rf "$packages/tornado/test"
# Tools of a build, each with what it has put beside itself.
for tool in clang cmake pip wheel; do
    rm -rf "$packages/$tool" "$packages/$tool"-*.dist-info "$packages/lib$tool"-*.dist-info
done
rm -f "$venv"/bin/cmake "$venv"/bin/cpack "$venv"/bin/ctest "$venv"/bin/pip* "$venv"/bin/wheel

# Of Amazon's services the platform uses one, and what signs in to it.
find "$packages/botocore/data" -mindepth 1 -maxdepth 1 -type d \
    ! -name s3 ! -name "sts" ! -name "sso*" ! -name "signin" -exec rm -rf {} +
# A second client for Kubernetes, 40 MB, beside the two that Airflow's provider asks.
rm -rf "$packages/kubernetes/aio"
# LiteRT's own way to a graphics card in a browser.
rm -f "$packages/ai_edge_litert/libLiteRtWebGpuAccelerator.so"

# Not what a wheel has brought along beside its packages: tools have moved parts of those about, which
# strip does not understand. NVIDIA's have no symbols to spare.
find "$packages" -name "*.so*" -type f -size +1M ! -path "*.libs/*" ! -path "*/nvidia/*" -exec strip --strip-unneeded {} +

# The name of a container that builds need not have an address.
HOROVOD_HOSTNAME=localhost HOROVOD_GLOO_IFACE=lo \
    "$venv/bin/python" -c "import horovod.tensorflow as hvd; hvd.init(); assert hvd.gloo_built()"
"$venv/bin/python" -c "import asyncpg, boto3, deltalake, duckdb, feast, great_expectations, mlflow, \
pandas, psycopg2, pyarrow.flight, s3fs, sklearn, uvloop, zstandard, ai_edge_litert.interpreter"
if [ -d "$packages/kubernetes" ]; then
    AIRFLOW_HOME=$(mktemp -d) "$venv/bin/python" -c \
        "import airflow.providers.cncf.kubernetes.executors.kubernetes_executor_utils"
fi
du -sh "$venv"
