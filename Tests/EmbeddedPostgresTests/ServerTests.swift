import Foundation
import Testing

@testable import EmbeddedPostgres

@Suite struct ServerTests {
  @Test func serverAnswersOverLoopbackAndSocket() async throws {
    let settings = ["max_prepared_transactions": "7", "martlet.quoted": "it's \\ok"]
    try await withEmbeddedPostgres(.init(settings: settings)) { (server) async throws in
      #expect(try await server.psql("SHOW martlet.quoted") == "it's \\ok")
      #expect(try await server.psql("SELECT 1") == "1")
      #expect(try await server.psql("SHOW server_version").hasPrefix(server.version))
      #expect(try await server.psql("SHOW max_prepared_transactions") == "7")
      #expect(try await server.psql("SHOW listen_addresses") == "127.0.0.1")
      #expect(try await server.psql("SHOW server_encoding") == "UTF8")
      let socket = "host=\(server.socketDirectory.path) port=\(server.port) user=postgres dbname=postgres"
      #expect(try await server.psql("SELECT inet_client_addr() IS NULL", url: socket) == "t")
    }
  }

  @Test func stopLeavesNothingBehind() async throws {
    let server = try await EmbeddedPostgres.start()
    let pid = try #require(server.pid)
    try await server.stop()
    #expect(server.pid == nil)
    #expect(!ProcessTable.isRunning(pid))
    #expect(!FileManager.default.fileExists(atPath: server.directory.path))
    try await server.stop()
  }

  @Test func stopCleansUpInACancelledTask() async throws {
    let server = try await EmbeddedPostgres.start()
    let task = Task {
      withUnsafeCurrentTask { $0?.cancel() }
      try await server.stop()
    }
    try await task.value
    #expect(!FileManager.default.fileExists(atPath: server.directory.path))
  }

  @Test(arguments: [EmbeddedPostgres.StopMode.smart, .fast, .immediate])
  func restartKeepsDataAndPort(mode: EmbeddedPostgres.StopMode) async throws {
    try await withEmbeddedPostgres { (server) async throws in
      let (url, pid) = (server.connectionString, server.pid)
      _ = try await server.psql("CREATE TABLE kept AS SELECT 42 AS n")
      try await server.restart(mode)
      #expect(server.pid != pid)
      #expect(try await psql("SELECT n FROM kept", url: url) == "42")
      let log = try String(contentsOf: server.logFile, encoding: .utf8)
      #expect(log.contains("automatic recovery in progress") == (mode == .immediate))
    }
  }

  @Test func killEndsABusyBackendAndResumeRecovers() async throws {
    try await withEmbeddedPostgres { (server) async throws in
      _ = try await server.psql("CREATE TABLE kept AS SELECT 42 AS n")
      // A loop that never waits would not notice by itself that its postmaster is dead.
      let busy = Task { try await server.psql("DO $$ BEGIN LOOP END LOOP; END $$") }
      try await eventually("the busy backend") {
        try await server.psql("SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'DO%' AND state = 'active'")
          == "1"
      }
      let backends = ProcessTable.children(of: try #require(server.pid))
      #expect(backends.count > 3)
      try await server.kill()
      #expect(!backends.contains(where: ProcessTable.isRunning))
      await #expect(throws: EmbeddedPostgresError.self) { try await busy.value }
      try await server.resume()
      #expect(try await server.psql("SELECT n FROM kept") == "42")
    }
  }

  @Test func killedServerIsRemovedWithoutResume() async throws {
    let server = try await EmbeddedPostgres.start()
    try await server.kill()
    try await server.stop()
    #expect(!FileManager.default.fileExists(atPath: server.directory.path))
  }

  @Test func twoServersRunAtOnce() async throws {
    try await withEmbeddedPostgres { (first) async throws in
      try await withEmbeddedPostgres { (second) async throws in
        _ = try await first.psql("CREATE TABLE only_here ()")
        #expect(first.port != second.port)
        #expect(try await second.psql("SELECT to_regclass('only_here') IS NULL") == "t")
      }
      #expect(try await first.psql("SELECT 1") == "1")
    }
  }

  @Test func databaseIsMadeFromATemplate() async throws {
    try await withEmbeddedPostgres { (server) async throws in
      let template = try await server.createDatabase("template_ä")
      _ = try await psql("CREATE TABLE kept AS SELECT 42 AS n", url: template)
      let copy = try await server.createDatabase("-copy of it", template: "template_ä")
      #expect(try await psql("SELECT n FROM kept", url: copy) == "42")
      await #expect(throws: EmbeddedPostgresError.self) { try await server.createDatabase("-copy of it") }
    }
  }
}
