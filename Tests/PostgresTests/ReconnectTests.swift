import EmbeddedPostgres
import Foundation
import Testing

@testable import Postgres

@Suite(.timeLimit(.minutes(3))) struct ReconnectTests {
  @Test func terminatedWhileIdleIsNotNoticedByTheCaller() async throws {
    let name = uniqueName("r")
    let session = try await Session(.init(connectionString: SharedServer.url, applicationName: name))
    let first = try await session.withConnection { try $0.value("SELECT pg_backend_pid()") }
    try await terminate("application_name = $1", [.text(name)])
    // Not its end in pg_stat_activity, which comes before the socket is closed.
    let process = try #require(first.flatMap { pid_t($0) })
    try await eventually("the backend's end") { kill(process, 0) == -1 && errno == ESRCH }
    try await #expect(session.withConnection { try $0.value("SELECT pg_backend_pid()") } != first)
  }

  @Test func terminatedInAStatementFailsItAndReconnects() async throws {
    let name = uniqueName("r")
    let session = try await Session(.init(connectionString: SharedServer.url, applicationName: name))
    async let failure = session.withConnection { connection in
      let error = try postgresError { try connection.execute("SELECT pg_sleep(600)") }
      #expect(!connection.isUsable && !connection.isAlive())
      try #expect(postgresError { try connection.execute("SELECT 1") }.kind == .connection)
      return error
    }
    try await eventually("the statement at work") {
      try await backends("application_name = $1 AND wait_event = 'PgSleep'", [.text(name)]) == 1
    }
    try await terminate("application_name = $1", [.text(name)])
    let error = try await failure
    #expect(error.kind == .connection && error.remedy == .reconnect && !"\(error)".contains("\n"))
    try await #expect(session.withConnection { try $0.value("SELECT 1") } == "1")
  }

  @Test func serverRestartIsSurvived() async throws {
    try await withEmbeddedPostgres { server in
      let session = Session(.init(connectionString: server.connectionString))
      let looping = Session(.init(connectionString: server.connectionString))
      for mode in [EmbeddedPostgres.StopMode.immediate, .fast] {
        let before = try await session.withConnection { try $0.value("SELECT pg_postmaster_start_time()") }
        _ = try await looping.run { try $0().value("SELECT 1") }
        try await server.halt(mode)
        let error = await #expect(throws: PostgresError.self) { try await session.withConnection { _ in } }
        #expect(error?.kind == .connection && error?.remedy == .reconnect)
        try await server.resume()
        try await #expect(session.withConnection { try $0.value("SELECT pg_postmaster_start_time()") } != before)
        try await #expect(looping.run { try $0().value("SELECT 1") } == "1")
      }
    }
  }
}
