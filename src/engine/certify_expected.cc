#include "engine/certify_expected.h"

#include <array>
#include <utility>

namespace rooftree::engine {
namespace {

constexpr std::array<std::pair<std::string_view, std::string_view>, 29> kExpected = {{
    {"product bf16", "132c0905bfe4997d"},        {"product bf16-12bit", "132c0905bfe4997d"},
    {"product f16", "40a9dbb1a9823c62"},         {"product f32", "7c6eca9b2ead39f8"},
    {"product iq4_nl", "e908206aa89fcf5f"},      {"product iq4_xs", "4c55d7aa5da4d07f"},
    {"product mxfp4", "315b692b4261b2a3"},       {"product mxint8", "64a415fde067a711"},
    {"product q2_k", "b13d8b1899a75fa3"},        {"product q3_k", "a8dbe2992d81d21c"},
    {"product q4_0", "63c4b6b2d84f4d5d"},        {"product q4_1", "78b44d48ca313260"},
    {"product q4_k", "382da02bb519ad16"},        {"product q5_0", "21b3e86afea299fb"},
    {"product q5_1", "10b2e2c4486a71c0"},        {"product q5_k", "bfe9fbcc941143c7"},
    {"product q6_k", "96b2ce463a3eeeb8"},        {"product q8_0", "a213405b2c88b0dc"},
    {"attention bf16", "737c163170b54ba3"},      {"attention f16", "8a56539615fc4288"},
    {"attention f32", "d70501046fd87c0b"},       {"attention q4_0", "fa9e35b28cdb3dbd"},
    {"attention q8_0", "a7e1555d7137d778"},      {"norm, activations, rotation", "dfe922daf9f771ca"},
    {"model bf16, kv bf16", "9d36129a0ea14606"}, {"model f16, kv f16", "d34623acdd9df2b7"},
    {"model f32, kv f32", "cdc0fcc377b16628"},   {"model q4_0, kv bf16", "4a6ef47469f06c2a"},
    {"model q8_0, kv bf16", "f60aeb84527d494c"},
}};

}  // namespace

std::string_view expected_hash(std::string_view name) {
  for (const auto& [work, hash] : kExpected) {
    if (work == name) return hash;
  }
  return {};
}

}  // namespace rooftree::engine
