#[[
Finds CAF, the C++ Actor Framework.

Components: core (default), io, openssl. For each one found there is an
imported target CAF::<component>. Sets CAF_FOUND, CAF_VERSION and
CAF_<component>_FOUND.

CAF 0.18 and newer bring a package config, which is preferred. CAF 0.17, as in
Debian and Ubuntu, does not: it is searched for by header and library.
]]
include(FindPackageHandleStandardArgs)

find_package(CAF ${CAF_FIND_VERSION} QUIET CONFIG
             COMPONENTS ${CAF_FIND_COMPONENTS})
if(CAF_FOUND)
  find_package_handle_standard_args(CAF CONFIG_MODE HANDLE_COMPONENTS)
  return()
endif()

find_path(CAF_INCLUDE_DIR caf/actor_system.hpp)
mark_as_advanced(CAF_INCLUDE_DIR)

# CAF_VERSION is 1706 for 0.17.6.
if(CAF_INCLUDE_DIR AND EXISTS ${CAF_INCLUDE_DIR}/caf/config.hpp)
  file(STRINGS ${CAF_INCLUDE_DIR}/caf/config.hpp _caf_version
       REGEX "#define CAF_VERSION [0-9]+")
  if(_caf_version MATCHES "CAF_VERSION ([0-9]+)")
    math(EXPR _caf_major "${CMAKE_MATCH_1} / 10000")
    math(EXPR _caf_minor "${CMAKE_MATCH_1} / 100 % 100")
    math(EXPR _caf_patch "${CMAKE_MATCH_1} % 100")
    set(CAF_VERSION ${_caf_major}.${_caf_minor}.${_caf_patch})
  endif()
endif()

set(_caf_components core)
set(_caf_header_core caf/actor_system.hpp)
set(_caf_header_io caf/io/middleman.hpp)
set(_caf_header_openssl caf/openssl/manager.hpp)
foreach(_caf_component IN LISTS CAF_FIND_COMPONENTS)
  list(APPEND _caf_components ${_caf_component})
endforeach()
list(REMOVE_DUPLICATES _caf_components)
foreach(_caf_component IN LISTS _caf_components)
  find_library(CAF_${_caf_component}_LIBRARY caf_${_caf_component})
  mark_as_advanced(CAF_${_caf_component}_LIBRARY)
  if(CAF_${_caf_component}_LIBRARY AND DEFINED _caf_header_${_caf_component}
     AND EXISTS ${CAF_INCLUDE_DIR}/${_caf_header_${_caf_component}})
    set(CAF_${_caf_component}_FOUND TRUE)
  endif()
endforeach()

find_package_handle_standard_args(CAF
  REQUIRED_VARS CAF_core_LIBRARY CAF_INCLUDE_DIR
  VERSION_VAR CAF_VERSION
  HANDLE_COMPONENTS)

if(CAF_FOUND)
  find_package(Threads QUIET)
  set(_caf_links_core Threads::Threads)
  set(_caf_links_io CAF::core)
  set(_caf_links_openssl CAF::io)
  foreach(_caf_component IN LISTS _caf_components)
    if(CAF_${_caf_component}_FOUND AND NOT TARGET CAF::${_caf_component})
      add_library(CAF::${_caf_component} UNKNOWN IMPORTED)
      set_target_properties(CAF::${_caf_component} PROPERTIES
        IMPORTED_LOCATION ${CAF_${_caf_component}_LIBRARY}
        INTERFACE_INCLUDE_DIRECTORIES ${CAF_INCLUDE_DIR}
        INTERFACE_LINK_LIBRARIES "${_caf_links_${_caf_component}}")
    endif()
  endforeach()
endif()
