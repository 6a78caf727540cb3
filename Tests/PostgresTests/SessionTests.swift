import Foundation
import Testing

@testable import Postgres

@Suite struct SessionTests {
  private func threads(_ name: String) throws -> Int {
    let tasks = try FileManager.default.contentsOfDirectory(atPath: "/proc/self/task")
    // A thread may end while we look.
    return tasks.filter { (try? String(contentsOfFile: "/proc/self/task/\($0)/comm", encoding: .utf8)) == name + "\n" }
      .count
  }

  @Test func allWorkOfASessionRunsOnItsThread() async throws {
    let session = try await Session(.init(connectionString: SharedServer.url))
    let threads = try await withThrowingTaskGroup(of: UInt.self) { group in
      for i in 0..<50 {
        group.addTask {
          i % 2 == 0
            ? try await session.withConnection { _ in UInt(pthread_self()) }
            : try await session.run { _ in UInt(pthread_self()) }
        }
      }
      return try await group.reduce(into: Set<UInt>()) { $0.insert($1) }
    }
    #expect(threads.count == 1 && !threads.contains(UInt(pthread_self())))
  }

  @Test func manyTasksTakeTurns() async throws {
    let session = try await Session(.init(connectionString: SharedServer.url))
    let table = uniqueName("t")
    try await session.withConnection { try $0.execute("CREATE TABLE \(table) AS SELECT 0 AS n") }
    try await withThrowingTaskGroup(of: Void.self) { group in
      for _ in 0..<50 {
        group.addTask {
          try await session.withConnection { connection in
            // Anything that came between would be lost, or find a transaction open.
            try connection.transaction { inside in
              let n = try inside.query("SELECT n FROM \(table)").int64(0, 0)
              _ = try inside.query("UPDATE \(table) SET n = $1", [.int8(n.map { $0 + 1 })])
            }
          }
        }
      }
      try await group.waitForAll()
    }
    try await #expect(session.withConnection { try $0.value("SELECT n FROM \(table)") } == "50")
  }

  @Test func droppedSessionsLeaveNeitherThreadsNorConnections() async throws {
    let name = uniqueName("s").prefix(15)
    for i in 0..<100 {
      let session = try await Session(
        .init(connectionString: SharedServer.url, applicationName: String(name)),
        name: String(name)
      )
      if i % 4 > 0 { try await session.withConnection { _ in } }
      if i % 4 == 1 { await #expect(throws: DivisionByZero.self) { try await fail(session) } }
      if i == 1 { try await eventually("the thread's name") { try threads(String(name)) > 0 } }
    }
    try await eventually("the threads' end") { try threads(String(name)) == 0 }
    try await eventually("the connections' end") {
      try await backends("application_name = $1", [.text(String(name))]) == 0
    }
  }

  private struct DivisionByZero: Error {}
  private func fail(_ session: Session) async throws {
    try await session.withConnection { connection in
      do { try connection.execute("SELECT 1/0") } catch { throw DivisionByZero() }
    }
  }

  @Test func connectionsAreKeptUntilDisconnected() async throws {
    let session = try await Session(.init(connectionString: SharedServer.url))
    func backend() async throws -> String? {
      try await session.withConnection { try $0.value("SELECT pg_backend_pid()") }
    }
    let first = try await backend()
    try await #expect(backend() == first)
    await session.disconnect()
    try await #expect(backend() != first)
  }

  @Test func connectionLeftInATransactionIsNotUsedAgain() async throws {
    let session = try await Session(.init(connectionString: SharedServer.url))
    try await session.withConnection { try $0.execute("CREATE TEMP TABLE t (); BEGIN") }
    try await session.withConnection { connection in
      #expect(!connection.isInTransaction)
      try #expect(connection.value("SELECT to_regclass('t')") == nil)
      try connection.execute("BEGIN")
      #expect(throws: PostgresError.self) { try connection.execute("SELECT 1/0") }
    }
    try await #expect(session.withConnection { try $0.value("SELECT 1") } == "1")
  }

  @Test func setUpRunsOnEachConnection() async throws {
    var configuration = try await ConnectionConfiguration(connectionString: SharedServer.url)
    configuration.setUp = ["SET work_mem = '12MB'", "SET synchronous_commit = off"]
    let session = Session(configuration)
    for _ in 0..<2 {
      try await #expect(session.withConnection { try $0.value("SHOW work_mem") } == "12MB")
      try await #expect(session.withConnection { try $0.value("SHOW synchronous_commit") } == "off")
      await session.disconnect()
    }
    configuration.setUp = ["SET nonsense"]
    let failing = Session(configuration)
    let error = await #expect(throws: PostgresError.self) { try await failing.withConnection { _ in } }
    #expect(error?.sqlState == "42601")
  }
}
