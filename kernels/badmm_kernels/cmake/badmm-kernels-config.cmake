# badmm-kernels: the C header of the Bayesian ADMM kernels for CMake projects.
#
#   find_package(badmm-kernels CONFIG REQUIRED)      with badmm-kernels_DIR from `python -m badmm_kernels --cmakedir`
#
#   badmm::kernels           the header, for C, C++ and CUDA
#   badmm::kernels_compiled  its functions with external linkage, for languages that cannot include it (needs C)
#   badmm::kernels_shared    the same as a shared library, libbadmm_kernels.so.0: the soname holds BADMM_KERNELS_ABI (needs C)
#   badmm::kernels_fortran   the Fortran module badmm_kernels and those functions (needs C and Fortran)

get_filename_component(badmm_kernels_INCLUDE_DIR "${CMAKE_CURRENT_LIST_DIR}/../include" ABSOLUTE)
get_property(_badmm_languages GLOBAL PROPERTY ENABLED_LANGUAGES)

if(NOT TARGET badmm::kernels)
  add_library(badmm_kernels INTERFACE)
  add_library(badmm::kernels ALIAS badmm_kernels)
  target_include_directories(badmm_kernels SYSTEM INTERFACE "${badmm_kernels_INCLUDE_DIR}")
  if(UNIX)
    target_link_libraries(badmm_kernels INTERFACE m)
  endif()
endif()

if("C" IN_LIST _badmm_languages AND NOT TARGET badmm::kernels_compiled)
  add_library(badmm_kernels_compiled STATIC EXCLUDE_FROM_ALL "${badmm_kernels_INCLUDE_DIR}/badmm_kernels.c")
  add_library(badmm::kernels_compiled ALIAS badmm_kernels_compiled)
  target_link_libraries(badmm_kernels_compiled PUBLIC badmm::kernels)
  set_target_properties(badmm_kernels_compiled PROPERTIES C_STANDARD 99 POSITION_INDEPENDENT_CODE ON)
endif()

if("C" IN_LIST _badmm_languages AND NOT TARGET badmm::kernels_shared)
  add_library(badmm_kernels_shared SHARED EXCLUDE_FROM_ALL "${badmm_kernels_INCLUDE_DIR}/badmm_kernels.c")
  add_library(badmm::kernels_shared ALIAS badmm_kernels_shared)
  target_link_libraries(badmm_kernels_shared PUBLIC badmm::kernels)
  file(STRINGS "${badmm_kernels_INCLUDE_DIR}/badmm/version.h" _badmm_abi REGEX "BADMM_KERNELS_ABI [0-9]+")
  string(REGEX REPLACE ".*ABI ([0-9]+).*" "\\1" _badmm_abi "${_badmm_abi}")
  set_target_properties(badmm_kernels_shared PROPERTIES C_STANDARD 99 OUTPUT_NAME badmm_kernels
    VERSION "${badmm-kernels_VERSION}" SOVERSION "${_badmm_abi}")
  unset(_badmm_abi)
endif()

if("Fortran" IN_LIST _badmm_languages AND TARGET badmm::kernels_compiled AND NOT TARGET badmm::kernels_fortran)
  add_library(badmm_kernels_fortran STATIC EXCLUDE_FROM_ALL "${badmm_kernels_INCLUDE_DIR}/badmm_kernels.f90")
  add_library(badmm::kernels_fortran ALIAS badmm_kernels_fortran)
  set(_badmm_modules "${CMAKE_CURRENT_BINARY_DIR}/badmm_kernels_modules")
  set_target_properties(badmm_kernels_fortran PROPERTIES Fortran_MODULE_DIRECTORY "${_badmm_modules}")
  target_include_directories(badmm_kernels_fortran PUBLIC "${_badmm_modules}")
  target_link_libraries(badmm_kernels_fortran PUBLIC badmm::kernels_compiled)
endif()

unset(_badmm_languages)
unset(_badmm_modules)
set(badmm-kernels_FOUND TRUE)
