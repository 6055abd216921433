# One library per folder of src/. A layer sees only the headers of the layers that it names: each layer's include directory
# holds a link to that one folder, so that a dependency that was not declared does not compile.

add_library(rooftree_options INTERFACE)
target_compile_options(rooftree_options INTERFACE -Wall -Wextra -Wshadow -Wconversion -Wold-style-cast
                                                  # Designated initialisers leave the other members at their defaults.
                                                  -Wno-missing-field-initializers
                                                  # g++ 12 at -O3 sees overlaps in std::string concatenation (GCC bug 105651), and
                                                  # uninitialised members of aggregates whose initialiser leaves them out.
                                                  "$<$<AND:$<CONFIG:Release>,$<CXX_COMPILER_ID:GNU>>:-Wno-restrict;-Wno-maybe-uninitialized>"
                                                  $<$<BOOL:${ROOFTREE_WERROR}>:-Werror>)
if(ROOFTREE_SANITIZE)
  target_compile_options(rooftree_options INTERFACE -fsanitize=${ROOFTREE_SANITIZE} -fno-sanitize-recover=all
                                                    -fno-omit-frame-pointer
                                                    # g++ 12 with sanitizers warns inside std::regex.
                                                    $<$<CXX_COMPILER_ID:GNU>:-Wno-maybe-uninitialized>)
  target_link_options(rooftree_options INTERFACE -fsanitize=${ROOFTREE_SANITIZE})
endif()

# rooftree_layer(NAME DEPENDS layer... LIBRARIES target... PRIVATE_LIBRARIES target...)
# Sources are all *.cc of src/NAME except *_test.cc, which become the test program rooftree_NAME_test.
function(rooftree_layer name)
  cmake_parse_arguments(arg "" "" "DEPENDS;LIBRARIES;PRIVATE_LIBRARIES;EXTRA_SOURCES" ${ARGN})
  file(GLOB_RECURSE sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/${name}/*.cc)
  set(tests ${sources})
  list(FILTER sources EXCLUDE REGEX "_test\\.cc$")
  list(FILTER tests INCLUDE REGEX "_test\\.cc$")
  set(include_dir ${PROJECT_BINARY_DIR}/layers/${name})
  file(MAKE_DIRECTORY ${include_dir})
  file(CREATE_LINK ${CMAKE_CURRENT_SOURCE_DIR}/${name} ${include_dir}/${name} SYMBOLIC)
  list(TRANSFORM arg_DEPENDS PREPEND rooftree_ OUTPUT_VARIABLE depends)
  add_library(rooftree_${name} STATIC ${sources} ${arg_EXTRA_SOURCES})
  target_include_directories(rooftree_${name} PUBLIC ${include_dir})
  target_link_libraries(rooftree_${name} PUBLIC ${depends} ${arg_LIBRARIES} PRIVATE rooftree_options ${arg_PRIVATE_LIBRARIES})
  if(tests)
    set_property(GLOBAL APPEND PROPERTY ROOFTREE_TESTED_LAYERS ${name})
    set_property(GLOBAL PROPERTY ROOFTREE_TESTS_${name} ${tests})
  endif()
  file(GLOB_RECURSE headers CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/${name}/*.h)
  set_property(GLOBAL APPEND PROPERTY ROOFTREE_HEADERS ${headers})
  set_property(GLOBAL APPEND PROPERTY ROOFTREE_LAYERS ${name})
endfunction()

# A layer of which others include headers, without its code.
function(rooftree_layer_headers name)
  cmake_parse_arguments(arg "" "" "DEPENDS" ${ARGN})
  set(include_dir ${PROJECT_BINARY_DIR}/layers/${name})
  file(MAKE_DIRECTORY ${include_dir})
  file(CREATE_LINK ${CMAKE_CURRENT_SOURCE_DIR}/${name} ${include_dir}/${name} SYMBOLIC)
  list(TRANSFORM arg_DEPENDS PREPEND rooftree_ OUTPUT_VARIABLE depends)
  add_library(rooftree_${name} INTERFACE)
  target_include_directories(rooftree_${name} INTERFACE ${include_dir})
  target_link_libraries(rooftree_${name} INTERFACE ${depends})
endfunction()
