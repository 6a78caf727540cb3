import Foundation
import Postgres

/// A lease on a database whose steps the benchmark takes itself, one at a time, as a dispatcher would: what each costs the
/// server, by its own count.
struct StepCaller {
  struct Cost {
    /// In the server, planning and sending apart.
    var milliseconds: Double
    /// Pages looked at, of the step and all that it calls.
    var buffers: Double
  }

  let database: BenchDatabase
  private let dispatcher: Int
  /// When the last claim's latest delivery was due: the next begins there, as a dispatcher's does.
  private var floor = "NULL"

  init(_ database: BenchDatabase) async throws {
    self.database = database
    try await database.session.withConnection { connection in
      // The steps wait for no disk, as a dispatcher's do not.
      try connection.execute(
        """
        SET synchronous_commit = off; ANALYZE;
        CREATE UNLOGGED TABLE bench_held (events uuid[], endpoints bigint[], batches bigint[], finished bigint[])
        """
      )
    }
    // Nobody renews the lease.
    dispatcher = Int(try await database.numbers("SELECT outbox.register('bench', '', 0, '', '1 day')")[0])
  }

  /// A cut that must hand over so many pairs.
  func cut(events: Int, pairs: Int) async throws -> Cost {
    let cost = try await explain(
      "SELECT * FROM outbox.cut(\(dispatcher), \(events), \(max(2000, pairs)), \(max(1000, pairs)), 16777216)"
    )
    try await hold(
      """
      SELECT b.event_ids, b.endpoint_ids, array_fill(b.id, ARRAY[cardinality(b.event_ids)]), ARRAY[b.id]
      FROM outbox.batch b ORDER BY b.id DESC LIMIT 1
      """,
      pairs: pairs
    )
    return cost
  }

  /// A claim that must hand over so many deliveries.
  mutating func claim(of endpoint: Int, pairs: Int) async throws -> Cost {
    let cost = try await explain(
      "SELECT * FROM outbox.claim(\(dispatcher), '{\(endpoint)}', '{\(pairs)}', ARRAY[\(floor)]::timestamptz[])"
    )
    try await hold(
      """
      SELECT array_agg(d.event_id), array_agg(d.endpoint_id), array_fill(NULL::bigint, ARRAY[count(*)::int]), '{}'
      FROM outbox.delivery d WHERE d.dispatcher_id = \(dispatcher)
      """,
      pairs: pairs
    )
    let due = try await database.session.withConnection { [dispatcher] in
      try $0.queryText("SELECT max(d.due_at)::text FROM outbox.delivery d WHERE d.dispatcher_id = \(dispatcher)").rows
    }
    floor = due.first?.first.flatMap { $0 }.map { "'\($0)'" } ?? "NULL"
    return cost
  }

  /// Everything that the last cut or claim handed over was delivered.
  func record() async throws -> Cost {
    try await explain(
      """
      SELECT r.* FROM bench_held h CROSS JOIN LATERAL (SELECT ARRAY[cardinality(h.events)] AS size) n
      CROSS JOIN LATERAL outbox.record(\(dispatcher), h.events, h.endpoints, h.batches, array_fill(1, n.size),
        array_fill('delivered'::text, n.size), array_fill(204, n.size), array_fill(1, n.size), '{}', '{}', '{}', '{}',
        h.finished) r
      """
    )
  }

  /// Gives back what it holds, and goes.
  func end() async throws {
    try await database.session.withConnection {
      _ = try $0.query("SELECT outbox.release(\(dispatcher))")
      try $0.execute("DROP TABLE bench_held; RESET synchronous_commit")
    }
  }

  private func hold(_ sql: String, pairs: Int) async throws {
    try await database.session.withConnection { try $0.execute("TRUNCATE bench_held; INSERT INTO bench_held \(sql)") }
    let held = try await database.numbers("SELECT coalesce(cardinality(events), 0) FROM bench_held").first
    guard held == Double(pairs) else { throw BenchError("\(held ?? 0) pairs were handed over, not \(pairs)") }
  }

  private func explain(_ sql: String) async throws -> Cost {
    try await database.session.withConnection { connection in
      let text = try connection.queryText("EXPLAIN (ANALYZE, BUFFERS, TIMING OFF, FORMAT JSON) \(sql)")
        .rows.compactMap(\.first?.self).joined(separator: "\n")
      guard let plan = try JSONDecoder().decode([Explained].self, from: Data(text.utf8)).first else {
        throw BenchError("no plan")
      }
      return Cost(milliseconds: plan.executionTime, buffers: Double(plan.plan.hit + plan.plan.read))
    }
  }

  private struct Explained: Decodable {
    var plan: Plan
    var executionTime: Double

    enum CodingKeys: String, CodingKey {
      case plan = "Plan"
      case executionTime = "Execution Time"
    }

    struct Plan: Decodable {
      var hit: Int
      var read: Int

      enum CodingKeys: String, CodingKey {
        case hit = "Shared Hit Blocks"
        case read = "Shared Read Blocks"
      }
    }
  }
}
