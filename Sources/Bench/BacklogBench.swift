import Foundation

/// What a backlog does to cut, claim and record and to the rate of deliveries: events not yet cut, deliveries that wait for
/// the endpoint being served, and those parked for one that is dead; beside the same with nothing behind.
package struct BacklogBench: Bench {
  /// Events behind those that are cut; nothing behind is always measured too.
  package var log = [1_000_000, 10_000_000]
  /// Deliveries behind those that are claimed.
  package var waiting = [1_000_000]
  /// Parked deliveries of an endpoint whose circuit is open.
  package var dead = [10_000_000]
  /// Cuts and claims of each kind, of 500 each.
  package var cuts = 20
  /// Deliveries of each drain, 0: none; and how many drains.
  package var deliveries = 50_000
  package var runs = 5
  package var bodyBytes = 500
  package var version: String
  package var progress: @Sendable (String) -> Void = { _ in }

  package init(version: String) { self.version = version }

  private static let size = 500
  /// Cuts that fill caches and prepare statements.
  private static let unmeasured = 3
  /// Endpoints get their numbers from 1.
  private static let (live, deadEndpoint) = (1, 2)

  private struct Scenario {
    var name: String
    var log = 0
    var waiting = 0
    var dead = 0
  }

  private var scenarios: [Scenario] {
    var all = [Scenario(name: "nothing behind")]
    for count in log { all.append(Scenario(name: "\(Double(count).text(0)) events not yet cut", log: count)) }
    for count in waiting {
      all.append(Scenario(name: "\(Double(count).text(0)) waiting for the same endpoint", waiting: count))
    }
    for count in dead {
      all.append(Scenario(name: "\(Double(count).text(0)) parked for a dead endpoint", dead: count))
    }
    return all
  }

  package func run() async throws -> BacklogReport {
    try await withBenchScene { scene in
      try await scene.withNginx { nginx in
        var rows: [BacklogReport.Row] = []
        var databases: [BenchDatabase] = []
        for (index, scenario) in scenarios.enumerated() {
          progress("loading: \(scenario.name)")
          let database = try await BenchDatabase.create("bench_\(index)", on: scene.server)
          try await load(database, scenario, nginx)
          databases.append(database)
          rows.append(BacklogReport.Row(name: scenario.name))
        }
        let machine = try await scene.machine(version, databases[0], nginx: nginx)
        progress("cutting and claiming")
        try await takeSteps(databases, &rows)
        if deliveries > 0 {
          for number in 1...runs {
            for index in databases.indices {
              progress("drain \(number) of \(runs): \(rows[index].name)")
              rows[index].drains.append(try await drain(databases[index], scene))
            }
          }
        }
        return BacklogReport(bench: self, machine: machine, rows: rows)
      }
    }
  }

  // MARK: - Loading

  private func load(_ database: BenchDatabase, _ scenario: Scenario, _ nginx: Nginx) async throws {
    try await database.addEndpoint(nginx.url, eventTypes: ["order.created"], maxInFlight: 64)
    try await database.addEndpoint("http://127.0.0.1:9/hook", eventTypes: ["dead.event"])
    try await database.session.withConnection { try $0.execute("SET synchronous_commit = off") }
    let steps = (cuts + Self.unmeasured) * Self.size
    // The claimed have events, which have been cut.
    try await insert(steps + scenario.waiting, database)
    try await database.session.withConnection {
      try $0.execute(
        "INSERT INTO outbox.position (done, target, events) SELECT pg_current_snapshot(), pg_current_snapshot(), 0"
      )
      try $0.execute(
        """
        INSERT INTO outbox.delivery (event_id, endpoint_id, due_at)
        SELECT e.id, \(Self.live), e.created_at FROM outbox.event e ORDER BY e.id
        """
      )
      // Of these nothing is ever looked up, their events least of all.
      try $0.execute(
        """
        INSERT INTO outbox.delivery (event_id, endpoint_id, due_at, attempts)
        SELECT outbox.uuid_v7(), \(Self.deadEndpoint), clock_timestamp(), 1 FROM generate_series(1, \(scenario.dead))
        """
      )
      try $0.execute(
        """
        UPDATE outbox.endpoint_health SET state = 'open', opened_at = clock_timestamp(), consecutive_failures = 10,
          failing_since = clock_timestamp(), probe_at = clock_timestamp() + interval '1 day'
        WHERE endpoint_id = \(Self.deadEndpoint)
        """
      )
    }
    // A drain is stopped a moment after it has made its deliveries, so each takes more.
    try await insert(steps + runs * (deliveries + deliveries / 2) + scenario.log, database)
    try await database.session.withConnection {
      try $0.execute("VACUUM (ANALYZE) outbox.event")
      try $0.execute("VACUUM (ANALYZE) outbox.delivery")
      try $0.execute("RESET synchronous_commit")
      try $0.execute("CHECKPOINT")
    }
  }

  private func insert(_ count: Int, _ database: BenchDatabase) async throws {
    for first in stride(from: 1, through: count, by: 50_000) {
      try await database.insert(first...min(count, first + 49_999), bodyBytes: bodyBytes)
      if first % 1_000_000 == 1, first > 1 { progress("  \(Double(first - 1).text(0)) events") }
    }
  }

  // MARK: - Steps

  private func takeSteps(_ databases: [BenchDatabase], _ rows: inout [BacklogReport.Row]) async throws {
    var callers: [StepCaller] = []
    for database in databases { callers.append(try await StepCaller(database)) }
    for round in 0..<(cuts + Self.unmeasured) {
      // In turns: a machine that slows down in the middle shall hit all.
      for index in callers.indices {
        let cut = try await callers[index].cut(events: Self.size, pairs: Self.size)
        let record = try await callers[index].record()
        let claim = try await callers[index].claim(of: Self.live, pairs: Self.size)
        let recordClaimed = try await callers[index].record()
        guard round >= Self.unmeasured else { continue }
        let costs = [cut, record, claim, recordClaimed]
        for (step, cost) in zip(BacklogReport.steps, costs) {
          rows[index].steps[step, default: .init()].milliseconds.append(cost.milliseconds)
          rows[index].steps[step, default: .init()].buffers.append(cost.buffers)
        }
      }
    }
    for caller in callers { try await caller.end() }
  }

  // MARK: - Draining

  private func drain(_ database: BenchDatabase, _ scene: BenchScene) async throws -> BacklogReport.Drain {
    let before = try await database.attempts()
    let postgres = scene.postgresSeconds
    var spent = 0.0
    try await scene.withDispatchers(on: database) { dispatchers in
      try await wait(within: .seconds(600), every: .milliseconds(200), for: "\(deliveries) deliveries") {
        try await dispatchers[0].check()
        let done = try await database.attempts() - before
        if done >= Double(deliveries) { return true }
        // The last drain of a database with nothing behind may find fewer: those before it took a little more.
        return try await database.isDrained()
      }
      spent = scene.postgresSeconds - postgres
    }
    // What was in flight went on a little; and nothing may have failed.
    let found = try await database.numbers(
      """
      SELECT count(*) FILTER (WHERE a.outcome = 'delivered'), count(*) FILTER (WHERE a.outcome = 'failed'),
        extract(epoch FROM max(a.at) - min(a.at)), count(*) FILTER (WHERE a.batch_id IS NULL)
      FROM outbox.attempt a WHERE a.dispatcher_id = (SELECT max(x.dispatcher_id) FROM outbox.attempt x)
      """
    )
    guard found[0] >= Double(deliveries) * 0.9, found[1] == 0 else {
      throw BenchError("of \(deliveries) deliveries \(found[0].text(0)) were made, and \(found[1].text(0)) failed")
    }
    return BacklogReport.Drain(
      perSecond: found[0] / found[2],
      postgresMicroseconds: spent * 1e6 / found[0],
      claimed: found[3]
    )
  }
}

package struct BacklogReport: TabularReport {
  package struct Step: Sendable, Codable {
    package var milliseconds: [Double] = []
    package var buffers: [Double] = []
  }

  package struct Drain: Sendable, Codable {
    package var perSecond: Double
    package var postgresMicroseconds: Double
    /// Deliveries that had waited.
    package var claimed: Double
  }

  package struct Row: Sendable, Codable {
    package var name: String
    package var steps: [String: Step] = [:]
    package var drains: [Drain] = []
  }

  static let steps = ["cut", "record", "claim", "record of claimed"]

  package var cuts: Int
  package var deliveries: Int
  package var machine: Machine
  /// The first has nothing behind.
  package var rows: [Row]

  init(bench: BacklogBench, machine: Machine, rows: [Row]) {
    (cuts, deliveries, self.machine, self.rows) = (bench.cuts, bench.deliveries, machine, rows)
  }

  package var title: String { "backlog: what is behind, and what it costs" }

  package var parts: [ReportPart] {
    var parts: [ReportPart] = [
      .lines([
        "\(cuts) steps of each kind, of 500 events or deliveries, by one caller, in turns over all databases",
        "median (lowest–highest) of the server's time and buffers; ratio of medians to those with nothing behind (aims: 1.15, 1.05)",
        "commits asynchronous, as the dispatcher's are by default; tables vacuumed after loading",
      ])
    ]
    for step in Self.steps { parts.append(.table(table(step))) }
    if deliveries > 0 {
      parts.append(.lines(["a dispatcher makes \(deliveries) deliveries to nginx, and goes again"]))
      parts.append(.table(drainTable))
    }
    return parts
  }

  private func table(_ step: String) -> ReportTable {
    func spread(_ row: Row, _ values: KeyPath<Step, [Double]>) -> Spread {
      Spread(row.steps[step]?[keyPath: values] ?? [])
    }
    return ReportTable(
      columns: ["\(step) of 500", "ms", "ratio", "buffers", "ratio"],
      rows: rows.map { row in
        let (time, buffers) = (spread(row, \.milliseconds), spread(row, \.buffers))
        return [
          row.name, time.text(2), (time.median / spread(rows[0], \.milliseconds).median).text(2), buffers.text(0),
          (buffers.median / spread(rows[0], \.buffers).median).text(2),
        ]
      }
    )
  }

  private var drainTable: ReportTable {
    ReportTable(
      columns: ["drain", "deliveries/s", "ratio", "PostgreSQL CPU, µs each", "of them claimed"],
      rows: rows.map { row in
        [
          row.name, Spread(row.drains.map(\.perSecond)).text(0),
          Spread(zip(row.drains, rows[0].drains).map { $0.perSecond / $1.perSecond }).text(2),
          Spread(row.drains.map(\.postgresMicroseconds)).text(1), Spread(row.drains.map(\.claimed)).text(0),
        ]
      }
    )
  }
}
