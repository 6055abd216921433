# Puts data files into the program: rooftree_embed(SYMBOL DIRECTORY "PATTERN;..." OUT_VARIABLE) generates an assembler file with the bytes of every file
# (.incbin: no string-literal limits, no compile time) and a table of {name, text}, reachable through base/embedded.h.
function(rooftree_embed symbol directory patterns out)
  list(TRANSFORM patterns PREPEND ${directory}/)
  file(GLOB_RECURSE files CONFIGURE_DEPENDS RELATIVE ${directory} ${patterns})
  list(SORT files)
  set(assembler ".section .rodata\n")
  set(table "")
  set(declarations "")
  set(index 0)
  set(paths "")
  foreach(file IN LISTS files)
    string(APPEND assembler
      ".global ${symbol}_${index}\n.global ${symbol}_${index}_end\n.balign 16\n${symbol}_${index}:\n.incbin \"${directory}/${file}\"\n${symbol}_${index}_end:\n.byte 0\n")
    string(APPEND declarations "extern const char ${symbol}_${index}[], ${symbol}_${index}_end[];\n")
    string(APPEND table "    {\"${file}\", ${symbol}_${index}, ${symbol}_${index}_end},\n")
    list(APPEND paths ${directory}/${file})
    math(EXPR index "${index} + 1")
  endforeach()
  string(APPEND assembler ".section .note.GNU-stack,\"\",%progbits\n")
  set(asm_file ${PROJECT_BINARY_DIR}/embedded/${symbol}.S)
  set(cc_file ${PROJECT_BINARY_DIR}/embedded/${symbol}.cc)
  file(CONFIGURE OUTPUT ${asm_file} CONTENT "${assembler}" @ONLY)
  file(CONFIGURE OUTPUT ${cc_file} CONTENT
"#include \"base/embedded.h\"
extern \"C\" {
${declarations}}
namespace rooftree {
namespace {
const EmbeddedFile kFiles[] = {
${table}    {nullptr, nullptr, nullptr}};
}  // namespace
std::span<const EmbeddedFile> embedded_${symbol}() { return {kFiles, ${index}}; }
}  // namespace rooftree
" @ONLY)
  set_source_files_properties(${asm_file} PROPERTIES OBJECT_DEPENDS "${paths}")
  set(${out} ${asm_file} ${cc_file} PARENT_SCOPE)
endfunction()
