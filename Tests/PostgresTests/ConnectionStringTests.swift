import EmbeddedPostgres
import Foundation
import Testing

@testable import Postgres

@Suite struct ConnectionStringTests {
  @Test func urlKeywordsAndSocketLeadToTheSameServer() async throws {
    let server = try await SharedServer.shared.get()
    let (port, directory) = (server.port, server.socketDirectory.path)
    let encoded = directory.replacing("/", with: "%2F")
    for (string, isLocal) in [
      ("postgres://postgres@127.0.0.1:\(port)/postgres", false),
      ("postgresql://postgres@127.0.0.1:\(port)/postgres?", false),
      ("host=127.0.0.1 port=\(port) user=postgres dbname=postgres", false),
      ("hostaddr=127.0.0.1 host='elsewhere' port = \(port) user=postgres dbname='postgres'", false),
      ("postgres://postgres@\(encoded):\(port)/postgres", true),
      ("postgres:///postgres?host=\(encoded)&port=\(port)&user=postgres", true),
      ("host='\(directory)' port=\(port) user=postgres dbname=postgres", true),
    ] {
      try await withConnection(to: string) { connection in
        try #expect(connection.value("SHOW port") == "\(port)", "\(string)")
        try #expect((connection.value("SELECT inet_client_addr()") == nil) == isLocal, "\(string)")
        #expect(connection.serverVersion / 10_000 == server.majorVersion)
      }
    }
  }

  @Test func namesArePercentDecodedAndNeverSQL() async throws {
    let server = try await SharedServer.shared.get()
    let name = uniqueName("ä b'\"; DROP -- %@?")
    let url = try await server.createDatabase(name)
    try await withConnection(to: url) { try #expect($0.value("SELECT current_database()") == name) }
    let quoted = name.replacing("\\", with: "\\\\").replacing("'", with: "\\'")
    try await withConnection(to: "host=127.0.0.1 port=\(server.port) user=postgres dbname='\(quoted)'") {
      try #expect($0.value("SELECT current_database()") == name)
    }
    let options = server.connectionString + "?options=-c%20work_mem%3D5MB"
    try await withConnection(to: options) { try #expect($0.value("SHOW work_mem") == "5MB") }
  }

  /// In a process of its own, as the environment belongs to all tests.
  @Test func environmentCompletesWhatIsNotGiven() async {
    await #expect(processExitsWith: .success) {
      try await withEmbeddedPostgres { server in
        setenv("PGHOST", "127.0.0.1", 1)
        setenv("PGPORT", "\(server.port)", 1)
        setenv("PGUSER", "postgres", 1)
        setenv("PGDATABASE", "postgres", 1)
        setenv("PGOPTIONS", "-c work_mem=5MB", 1)
        setenv("PGAPPNAME", "by environment", 1)
        let session = Session(.init(applicationName: "ours"))
        let shown = try await session.withConnection {
          try [$0.value("SHOW work_mem"), $0.value("SHOW application_name"), $0.value("SHOW port")]
        }
        try #require(shown == ["5MB", "by environment", "\(server.port)"])
        setenv("PGDATABASE", "nowhere", 1)
        try await withConnection(to: "postgres:///postgres") {
          try #require($0.value("SELECT current_database()") == "postgres")
        }
        setenv("PGDATABASE", "postgres", 1)
        setenv("PGTARGETSESSIONATTRS", "standby", 1)
        let standby = Session(.init())
        await #expect(throws: PostgresError.self) { try await standby.withConnection { _ in } }
        setenv("PGTARGETSESSIONATTRS", "any", 1)
        setenv("PGCONNECT_TIMEOUT", "7", 1)
        let names = ConnectionConfiguration().parameters.map(\.0)
        try #require(!names.contains("connect_timeout") && !names.contains("target_session_attrs"))
      }
    }
  }

  @Test func noticesAreNotPrinted() async throws {
    let result = await #expect(processExitsWith: .success, observing: [\.standardErrorContent]) {
      try await withEmbeddedPostgres { server in
        try await withConnection(to: server.connectionString) { connection in
          try connection.execute("DO $$ BEGIN RAISE WARNING 'martlet warns'; RAISE NOTICE 'martlet notes'; END $$")
          try connection.execute("DROP TABLE IF EXISTS martlet_notes")
          let rows = try connection.query("SELECT 1")
          _ = rows.string(7, 7)
        }
      }
    }
    let printed = String(decoding: try #require(result).standardErrorContent, as: UTF8.self)
    #expect(!printed.contains("martlet") && !printed.contains("out of range"))
  }
}
