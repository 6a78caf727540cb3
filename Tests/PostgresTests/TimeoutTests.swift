import EmbeddedPostgres
import Foundation
import Testing

@testable import Postgres

@Suite struct TimeoutTests {
  @Test func statementTimeoutEndsAStatement() async throws {
    try await withConnection(to: SharedServer.url, statementTimeout: .milliseconds(50)) { connection in
      let error = try postgresError { try connection.execute("SELECT pg_sleep(600)") }
      #expect(error.kind == .server && error.sqlState == "57014" && error.remedy == .retry)
      try #expect(connection.value("SELECT 1") == "1")
    }
  }

  @Test func statementTimeoutStaysInTheServersRange() async throws {
    let expected: [(Duration, String)] = [
      (.zero, "0"), (.seconds(-5), "0"), (.microseconds(1), "1ms"), (.milliseconds(1500), "1500ms"),
      (.seconds(60), "1min"), (.seconds(Int64.max), "2147483647ms"),
    ]
    for (timeout, shown) in expected {
      do {
        try await withConnection(to: SharedServer.url, statementTimeout: timeout) { connection in
          try #expect(connection.value("SHOW statement_timeout") == shown)
        }
      } catch let error as PostgresError where error.sqlState == "57014" && shown == "1ms" {
        // On a busy machine the question itself takes longer, which answers it.
      }
    }
  }

  @Test func keepaliveAndUserTimeoutAreSetOnTheSocket() async throws {
    try await withConnection { connection in
      func option(_ level: Int32, _ name: Int32) -> Int32 {
        var (value, length) = (Int32(-1), socklen_t(MemoryLayout<Int32>.size))
        return getsockopt(connection.socket, level, name, &value, &length) == 0 ? value : -1
      }
      let tcp = Int32(IPPROTO_TCP)
      #expect(option(SOL_SOCKET, SO_KEEPALIVE) == 1)
      #expect(option(tcp, TCP_KEEPIDLE) == 5)
      #expect(option(tcp, TCP_KEEPINTVL) == 3)
      #expect(option(tcp, TCP_KEEPCNT) == 3)
      #expect(option(tcp, TCP_USER_TIMEOUT) == 15_000)
    }
  }

  @Test func connectionStringOverridesOurDefaults() async throws {
    let url = try await SharedServer.url + "?keepalives_idle=77&application_name=mine&tcp_user_timeout=1234"
    try await withConnection(to: url) { connection in
      var (value, length) = (Int32(-1), socklen_t(MemoryLayout<Int32>.size))
      getsockopt(connection.socket, Int32(IPPROTO_TCP), TCP_KEEPIDLE, &value, &length)
      #expect(value == 77)
      try #expect(connection.value("SHOW application_name") == "mine")
    }
    try await withConnection(to: url + "&client_encoding=LATIN1") { connection in
      try #expect(connection.value("SHOW client_encoding") == "UTF8")
    }
  }
}
