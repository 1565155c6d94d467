#[[
Finds xxHash: the imported target xxHash::xxhash, xxHash_FOUND, xxHash_VERSION.

A package config of xxHash itself is preferred; Debian's package has none.
]]
include(FindPackageHandleStandardArgs)

find_package(xxHash ${xxHash_FIND_VERSION} QUIET CONFIG)
if(xxHash_FOUND)
  find_package_handle_standard_args(xxHash CONFIG_MODE)
  return()
endif()

find_path(xxHash_INCLUDE_DIR xxhash.h)
find_library(xxHash_LIBRARY xxhash)
mark_as_advanced(xxHash_INCLUDE_DIR xxHash_LIBRARY)

if(xxHash_INCLUDE_DIR)
  file(STRINGS ${xxHash_INCLUDE_DIR}/xxhash.h _xxhash_lines
       REGEX "#define XXH_VERSION_(MAJOR|MINOR|RELEASE) +[0-9]+")
  set(_xxhash_numbers "")
  foreach(_xxhash_line IN LISTS _xxhash_lines)
    string(REGEX MATCH "[0-9]+" _xxhash_number ${_xxhash_line})
    list(APPEND _xxhash_numbers ${_xxhash_number})
  endforeach()
  list(JOIN _xxhash_numbers "." xxHash_VERSION)
endif()

find_package_handle_standard_args(xxHash
  REQUIRED_VARS xxHash_LIBRARY xxHash_INCLUDE_DIR
  VERSION_VAR xxHash_VERSION)

if(xxHash_FOUND AND NOT TARGET xxHash::xxhash)
  add_library(xxHash::xxhash UNKNOWN IMPORTED)
  set_target_properties(xxHash::xxhash PROPERTIES
    IMPORTED_LOCATION ${xxHash_LIBRARY}
    INTERFACE_INCLUDE_DIRECTORIES ${xxHash_INCLUDE_DIR})
endif()
