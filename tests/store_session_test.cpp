#include "actors/store_session.hpp"
#include "ipc/process_board.hpp"
#include "tests/support/machine_handle.hpp"

#include <catch2/catch.hpp>

#include <new>

using namespace callboard;
using namespace callboard::test;

namespace {

result<void> do_nothing(store&) {
  return {};
}

result<void> run_out_of_memory(store&) {
  throw std::bad_alloc();
}

} // namespace

TEST_CASE("what an exception has left half done is not used again",
          "[session]") {
  const auto how = GENERATE(store_access::read, store_access::write);
  const scratch_directory where;
  int opened = 0;
  const auto session = need(store_session::open([&] {
    ++opened;
    return store::open(posix_io(), process_board(),
                       {.working_directory = where.path(),
                        .namespace_name = "chunks",
                        .dimension = 4});
  }));
  need(session->use(how, do_nothing));
  REQUIRE(opened == 1);
  const auto failed = session->use(how, run_out_of_memory);
  REQUIRE_FALSE(failed);
  CHECK(failed.error().code == errc::broken);
  need(session->use(store_access::read, do_nothing));
  CHECK(opened == 2);
  need(session->use(store_access::read, do_nothing));
  CHECK(opened == 2);
}
