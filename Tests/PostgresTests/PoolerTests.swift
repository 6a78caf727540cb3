import Foundation
import Testing

@testable import EmbeddedPostgres
@testable import Postgres

/// A real pgbouncer in transaction mode, if there is one.
@Suite(.timeLimit(.minutes(2))) struct PoolerTests {
  @Test func twoClientsShareOneServerConnection() async throws {
    try await withPooler(serverConnections: 1) { url in
      let sessions = (0..<2).map { _ in Session(.init(connectionString: url)) }
      for round in 0..<20 {
        for session in sessions {
          try await session.withConnection { connection in
            #expect(connection.isPooled)
            try #expect(connection.query("SELECT $1 + 1", [.int8(1)]).int64(0, 0) == 2)
            try #expect(connection.query("SELECT $1 || 'ä'", [.text("x")]).text(0, 0) == "xä")
            if round % 2 == 0 {
              try #expect(connection.transaction { try $0.query("SELECT $1 + 1", [.int8(2)]).int64(0, 0) } == 3)
            }
          }
        }
      }
    }
  }

  @Test func manyClientsChangeServerConnections() async throws {
    try await withPooler(serverConnections: 3) { url in
      try await withThrowingTaskGroup(of: Void.self) { group in
        for client in 0..<6 {
          group.addTask {
            let session = Session(.init(connectionString: url))
            for i in 0..<50 {
              try await session.withConnection { connection in
                let value = Int64(client * 1000 + i)
                try #expect(connection.query("SELECT $1", [.int8(value)]).int64(0, 0) == value)
                try #expect(connection.transaction { try $0.query("SELECT $1", [.int8(value)]).int64(0, 0) } == value)
              }
            }
          }
        }
        try await group.waitForAll()
      }
    }
  }

  /// What happens where a pooler is not recognised: names get lost, collide, and recover.
  @Test func unrecognisedPoolerRecovers() async throws {
    try await withPooler(serverConnections: 1) { url in
      let sessions = (0..<2).map { _ in Session(.init(connectionString: url)) }
      for _ in 0..<3 {
        for session in sessions {
          try await session.withConnection { connection in
            connection.isPooled = false
            try #expect(connection.query("SELECT $1 * 2", [.int8(4)]).int64(0, 0) == 8)
          }
        }
      }
      try await sessions[0].withConnection { connection in
        connection.isPooled = false
        try #expect(connection.query("SELECT $1 * 3", [.int8(4)]).int64(0, 0) == 12)
        try connection.execute("DEALLOCATE ALL")
        try #expect(connection.query("SELECT $1 * 3", [.int8(4)]).int64(0, 0) == 12)
      }
    }
  }

  @Test func cancellationPassesThrough() async throws {
    try await withPooler(serverConnections: 1) { url in
      let name = uniqueName("pooled")
      let session = Session(.init(connectionString: url, applicationName: name))
      let task = Task { try await session.withConnection { try $0.execute("/* \(name) */ SELECT pg_sleep(600)") } }
      try await eventually("the statement at work") {
        try await backends("query LIKE '/* ' || $1 || '%' AND wait_event = 'PgSleep'", [.text(name)]) == 1
      }
      task.cancel()
      await #expect(throws: CancellationError.self) { try await task.value }
      try await #expect(session.withConnection { try $0.value("SELECT 1") } == "1")
    }
  }

  private func withPooler(serverConnections: Int, _ body: (String) async throws -> Void) async throws {
    guard let program = Pooler.program else { try Test.cancel("pgbouncer is not installed") }
    let server = try await SharedServer.shared.get()
    let directory = FileManager.default.temporaryDirectory.appendingPathComponent(uniqueName("pooler"))
    try FileManager.default.createDirectory(
      at: directory,
      withIntermediateDirectories: true,
      attributes: [.posixPermissions: 0o755]
    )
    defer { try? FileManager.default.removeItem(at: directory) }
    let pooler = try Pooler(
      program: program,
      server: server,
      serverConnections: serverConnections,
      directory: directory
    )
    try pooler.start()
    do {
      try await eventually("pgbouncer's start") {
        if let status = pooler.exitStatus { throw EmbeddedPostgresError.toolFailed("pgbouncer", status, output: "") }
        return (try? await withConnection(to: pooler.connectionString) { _ in true }) ?? false
      }
      try await body(pooler.connectionString)
    } catch {
      await pooler.kill()
      throw error
    }
    await pooler.kill()
  }
}
