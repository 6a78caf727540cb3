import Foundation
import Synchronization
import Testing

@testable import Postgres

@Suite(.timeLimit(.minutes(2))) struct CancellationTests {
  private func session(_ name: String) async throws -> Session {
    try await Session(.init(connectionString: SharedServer.url, applicationName: name))
  }

  private func isSleeping(_ name: String) async throws -> Bool {
    try await backends("application_name = $1 AND wait_event = 'PgSleep'", [.text(name)]) == 1
  }

  @Test func runningStatementIsCancelled() async throws {
    let name = uniqueName("cancel")
    let session = try await session(name)
    let task = Task { try await session.withConnection { try $0.execute("SELECT pg_sleep(600)") } }
    try await eventually("the statement at work") { try await isSleeping(name) }
    task.cancel()
    await #expect(throws: CancellationError.self) { try await task.value }
    try await eventually("the backend's end") { try await backends("application_name = $1", [.text(name)]) == 0 }
    try await #expect(session.withConnection { try $0.value("SELECT 1") } == "1")
  }

  @Test func cancelledTransactionIsRolledBack() async throws {
    let name = uniqueName("cancel")
    let session = try await session(name)
    try await session.withConnection { try $0.execute("CREATE TABLE \(name) ()") }
    let task = Task {
      try await session.withConnection { connection in
        defer { #expect(connection.isUsable && !connection.isInTransaction) }
        try connection.transaction { inside in
          try inside.execute("INSERT INTO \(name) DEFAULT VALUES")
          try inside.execute("SELECT pg_sleep(600)")
        }
      }
    }
    try await eventually("the statement at work") { try await isSleeping(name) }
    task.cancel()
    await #expect(throws: CancellationError.self) { try await task.value }
    try await #expect(session.withConnection { try $0.value("SELECT count(*) FROM \(name)") } == "0")
  }

  @Test func statementsAfterACancellationDoNotBegin() async throws {
    let name = uniqueName("cancel")
    let session = try await session(name)
    let isInside = Mutex(false)
    let task = Task {
      try await session.withConnection { connection in
        isInside.withLock { $0 = true }
        while !Task.isCancelled { usleep(1000) }
        try connection.transaction { _ in }
      }
    }
    try await eventually("the body at work") { isInside.withLock { $0 } }
    task.cancel()
    await #expect(throws: CancellationError.self) { try await task.value }
  }

  @Test func cancelledTaskNeverConnects() async throws {
    let name = uniqueName("cancel")
    let session = try await session(name)
    let task = Task {
      withUnsafeCurrentTask { $0?.cancel() }
      try await session.withConnection { _ in _ = Issue.record("ran in a cancelled task") }
    }
    await #expect(throws: CancellationError.self) { try await task.value }
    try await #expect(backends("application_name = $1", [.text(name)]) == 0)
  }

  @Test func taskCancelledInTheQueueNeverRuns() async throws {
    let name = uniqueName("cancel")
    let session = try await session(name)
    let first = Task { try await session.withConnection { try $0.execute("SELECT pg_sleep(600)") } }
    try await eventually("the first statement at work") { try await isSleeping(name) }
    let second = Task { try await session.withConnection { _ in _ = Issue.record("ran after its cancellation") } }
    second.cancel()
    first.cancel()
    await #expect(throws: CancellationError.self) { try await second.value }
    await #expect(throws: CancellationError.self) { try await first.value }
  }

  @Test func taskCancelledWhileConnectingNeverRuns() async throws {
    let silent = try ListeningSocket()
    let url =
      "postgres://postgres@127.0.0.1:\(silent.port)/postgres?connect_timeout=60&gssencmode=disable&sslmode=disable"
    let session = Session(.init(connectionString: url))
    let task = Task { try await session.withConnection { _ in _ = Issue.record("ran after its cancellation") } }
    try await eventually("the call") { silent.hasCaller }
    task.cancel()
    silent.close()
    await #expect(throws: (any Error).self) { try await task.value }
  }

  /// Cancellations at random moments: each ends at once with a result or CancellationError, none hits a later statement.
  @Test func cancellationsNeverHitTheNextStatement() async throws {
    let seed = UInt64.random(in: 0...UInt64.max)
    var random = SeededGenerator(seed: seed)
    let session = try await session(uniqueName("cancel"))
    for _ in 0..<200 {
      let task = Task { try await session.withConnection { try $0.execute("SELECT pg_sleep(0.002)") } }
      for _ in 0..<Int.random(in: 0..<200, using: &random) { await Task.yield() }
      task.cancel()
      do {
        try await task.value
      } catch is CancellationError {
      } catch {
        Issue.record("seed \(seed): \(error)")
      }
      try await #expect(session.withConnection { try $0.value("SELECT 1") } == "1", "seed \(seed)")
    }
  }

  @Test func cancellerEndsOnlyTheRunningStatement() async throws {
    let name = uniqueName("cancel")
    let session = try await session(name)
    let canceller = try await session.withConnection { connection in
      connection.canceller()
      try #expect(connection.value("SELECT 1") == "1")
      return connection.canceller
    }
    async let error = session.run { connect in
      let connection = try connect()
      let error = try postgresError { try connection.execute("SELECT pg_sleep(600)") }
      try #expect(connection.value("SELECT 1") == "1")
      return error
    }
    try await eventually("the statement at work") { try await isSleeping(name) }
    canceller()
    let cancelled = try await error
    #expect(cancelled.kind == .server && cancelled.sqlState == "57014" && cancelled.remedy == .retry)
  }
}

/// SplitMix64.
struct SeededGenerator: RandomNumberGenerator {
  private var state: UInt64
  init(seed: UInt64) { state = seed }
  mutating func next() -> UInt64 {
    state &+= 0x9E37_79B9_7F4A_7C15
    var z = state
    z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
    z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
    return z ^ (z >> 31)
  }
}
