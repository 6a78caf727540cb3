import Foundation
import Postgres

/// One session that publishes in every way an application may: for `CutStressTests`.
struct Publisher {
  private let client: Client
  private let name: String
  private var generator: SeededGenerator

  init(_ database: Database, _ number: Int, _ generator: SeededGenerator) {
    client = database.client()
    name = "\(database.name)_w\(number)"
    self.generator = generator
  }

  mutating func run(_ rounds: Int) async throws {
    for round in 0..<rounds { try await publish(round) }
  }

  private mutating func publish(_ round: Int) async throws {
    let commits = Bool.random(using: &generator) || Bool.random(using: &generator)
    switch Int.random(in: 0..<10, using: &generator) {
    case 0...2: try await insert()  // on its own
    case 3: try await inTransaction("READ COMMITTED", commits, pauses: 0)
    case 4: try await inTransaction("REPEATABLE READ", commits, pauses: 1)
    case 5: try await inTransaction("SERIALIZABLE", commits, pauses: 1)
    case 6, 7: try await inTransaction("READ COMMITTED", commits, pauses: 12)  // long: many cuts pass
    case 8: try await withSavepoints(commits)
    default: try await inTwoPhases(round, commits)
    }
  }

  private mutating func inTransaction(_ isolation: String, _ commits: Bool, pauses: Int) async throws {
    try await client.execute("BEGIN ISOLATION LEVEL \(isolation); SELECT count(*) FROM outbox.subscription")
    try await insert()
    for _ in 0..<pauses {
      await Task.yield()
      if Bool.random(using: &generator) { try await insert() }
      // Work that takes a while: what counts is that cuts happen meanwhile, not how many.
      try await client.execute("SELECT count(*) FROM generate_series(1, 20000)")
    }
    try await end(commits)
  }

  private mutating func withSavepoints(_ commits: Bool) async throws {
    try await client.execute("BEGIN")
    for depth in 0..<3 {
      try await client.execute("SAVEPOINT s\(depth)")
      try await insert()
    }
    try await client.execute("ROLLBACK TO s1")
    try await insert()
    try await client.execute("RELEASE s0")
    try await end(commits)
  }

  private mutating func inTwoPhases(_ round: Int, _ commits: Bool) async throws {
    try await client.execute("BEGIN")
    try await insert()
    try await client.execute("PREPARE TRANSACTION '\(name)_\(round)'")
    try await client.execute("SELECT count(*) FROM generate_series(1, 50000)")
    try await client.execute("\(commits ? "COMMIT" : "ROLLBACK") PREPARED '\(name)_\(round)'")
  }

  private mutating func end(_ commits: Bool) async throws {
    try await client.execute(commits ? "COMMIT" : "ROLLBACK")
  }

  private mutating func insert() async throws {
    let type = ["direct", "direct", "keyed"].randomElement(using: &generator)!
    let key = type == "keyed" ? "k\(Int.random(in: 0..<20, using: &generator))" : nil
    try await client.publish(.random(in: 1...30, using: &generator), type: type, key: key)
  }
}
