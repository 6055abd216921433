#include "kernels/cpu/block_products_forms.h"
namespace rooftree::kernels::cpu::block {
const Table* avx2_table() { return nullptr; }
const Table* avx_vnni_table() { return nullptr; }
const Table* neon_table() { return nullptr; }
}  // namespace rooftree::kernels::cpu::block
