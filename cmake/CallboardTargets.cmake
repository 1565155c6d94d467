# What every target of this project is made with.

# Flags of this project's own code. Never exported to its users.
add_library(callboard_flags INTERFACE)
target_compile_options(callboard_flags INTERFACE
                       -Wall -Wextra -Wpedantic -Wshadow)
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU"
   AND CMAKE_CXX_FLAGS MATCHES "-fsanitize")
  # Sanitizers make GCC see uninitialized variables where there are none, even
  # in the standard library.
  target_compile_options(callboard_flags INTERFACE -Wno-maybe-uninitialized)
endif()

find_program(CALLBOARD_CCACHE ccache DOC "Compiler cache, used when found")
mark_as_advanced(CALLBOARD_CCACHE)
if(CALLBOARD_CCACHE AND NOT CMAKE_CXX_COMPILER_LAUNCHER)
  # Without this sloppiness ccache refuses everything that uses a
  # precompiled header.
  set(CMAKE_CXX_COMPILER_LAUNCHER
      ${CMAKE_COMMAND} -E env
      CCACHE_SLOPPINESS=pch_defines,time_macros,include_file_mtime,include_file_ctime
      ${CALLBOARD_CCACHE})
endif()

# callboard_include_root(<name> <variable>)
#
# Sets <variable> to an include root in the build tree that holds nothing but a
# link to the current folder, so that "<name>/x.hpp" is found through it. Each
# target has its own: whoever does not link a library cannot include from it,
# and an include against the link graph does not compile.
function(callboard_include_root name variable)
  set(root ${PROJECT_BINARY_DIR}/include/${name})
  file(MAKE_DIRECTORY ${root})
  file(CREATE_LINK ${CMAKE_CURRENT_SOURCE_DIR} ${root}/${name} SYMBOLIC)
  set(${variable} ${root} PARENT_SCOPE)
endfunction()

# callboard_library(<name> [FOLDER <folder>] SOURCES <file>...
#                   HEADERS <file>...)
#
# Makes callboard_<name>, known as callboard::<name>, from the current folder,
# which is called <folder>, or as the library. HEADERS are the public ones: they
# are installed.
function(callboard_library name)
  cmake_parse_arguments(PARSE_ARGV 1 arg "" "FOLDER" "SOURCES;HEADERS")
  set(target callboard_${name})
  set(folder ${name})
  if(arg_FOLDER)
    set(folder ${arg_FOLDER})
  endif()
  callboard_include_root(${folder} include_root)
  list(TRANSFORM arg_HEADERS PREPEND ${include_root}/${folder}/)

  add_library(${target})
  add_library(callboard::${name} ALIAS ${target})
  set_target_properties(${target} PROPERTIES
                        EXPORT_NAME ${name}
                        POSITION_INDEPENDENT_CODE ON
                        VERIFY_INTERFACE_HEADER_SETS ON)
  target_sources(${target}
    PRIVATE ${arg_SOURCES}
    PUBLIC FILE_SET HEADERS BASE_DIRS ${include_root} FILES ${arg_HEADERS})
  target_compile_features(${target} PUBLIC cxx_std_20)
  target_link_libraries(${target} PRIVATE $<BUILD_INTERFACE:callboard_flags>)
endfunction()

# callboard_precompile_caf(<target>)
#
# For targets whose every source includes CAF: its headers are most of their
# build time.
function(callboard_precompile_caf target)
  target_precompile_headers(${target} PRIVATE
    <chrono> <cstdint> <functional> <map> <memory> <optional> <string>
    <unordered_map> <utility> <variant> <vector>
    <caf/actor_system.hpp> <caf/actor_system_config.hpp>
    <caf/event_based_actor.hpp> <caf/scoped_actor.hpp>
    <caf/typed_actor.hpp> <caf/typed_event_based_actor.hpp>)
  if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
    # ccache asks for it.
    target_compile_options(${target} PRIVATE -fpch-preprocess)
  elseif(CMAKE_CXX_COMPILER_ID MATCHES "Clang")
    # A header restored by ccache is younger than the one it was made from.
    target_compile_options(${target} PRIVATE
                           "SHELL:-Xclang -fno-pch-timestamp")
  endif()
endfunction()
