package struct PinnedReport: TabularReport {
  /// What is counted at the end of each slice.
  struct Sample: Sendable {
    var at: UInt64
    var dispatcherSeconds: Double
    var postgresSeconds: Double
    var walBytes: Double
    var deadRows: Double
    var megabytes: Double
    var statements: StatementStatistics
  }

  /// A time, by the events committed in it.
  package struct Period: Sendable, Codable {
    package var fromSeconds: Double
    package var toSeconds: Double
    package var publishedPerSecond: Double
    /// By the moment of arrival.
    package var deliveredPerSecond: Double
    package var commitToReceipt: Distribution
    /// Of the publisher's statement, which is the commit: what the machine and PostgreSQL add without us.
    package var commit: Distribution
    /// By how much a thread that only sleeps wakes late.
    package var timerDelay: Distribution
    /// Microseconds of processor time for each delivery.
    package var dispatcherMicroseconds: Double
    package var postgresMicroseconds: Double
    package var walBytes: Double
    package var deadRows: Double
    package var megabytes: Double
    package var statements: [String: Statement]
  }

  package struct Statement: Sendable, Codable {
    package var perSecond: Double
    package var microseconds: Double
    package var buffers: Double
    package var rows: Double
    package var walBytes: Double
  }

  package var seconds: Int
  package var rate: Int
  package var connections: Int
  package var isPinned: Bool
  package var commitMode: String
  package var machine: Machine
  package var warmUpSeconds: Double
  package var first: Period
  package var last: Period
  package var slices: [Period]
  package var pinnedTransactions: Double
  package var peakMegabytes: Double
  package var repeated: Int
  package var tables: [TableStatistics]
  package var conservation = Conservation(pairs: 0, delivered: 0, waiting: 0, inFlight: 0, dead: 0, missing: 0)

  package var rateRatio: Double { last.deliveredPerSecond / first.deliveredPerSecond }
  package var p99Ratio: Double { last.commitToReceipt.p99 / first.commitToReceipt.p99 }

  init(
    bench: PinnedBench,
    machine: Machine,
    origin: UInt64,
    pinnedTransactions: Double,
    peakMegabytes: Double,
    tables: [TableStatistics],
    samples: [Sample],
    times: EventTimes.Times
  ) {
    (seconds, rate, connections, isPinned) = (bench.seconds, bench.rate, bench.connections, bench.isPinned)
    commitMode = DispatcherProcess.Options(synchronousCommit: bench.synchronousCommit).commitMode
    self.machine = machine
    warmUpSeconds = Double(bench.sliceNanoseconds) / 1e9
    (self.pinnedTransactions, self.peakMegabytes, self.tables) = (pinnedTransactions, peakMegabytes, tables)
    repeated = times.repeated
    let warm = origin + bench.sliceNanoseconds
    slices = samples.indices.dropLast().map { Period(samples, $0, $0 + 1, warm, times) }
    first = Period(samples, 0, PinnedBench.slicesPerWindow, warm, times)
    last = Period(samples, PinnedBench.slices - PinnedBench.slicesPerWindow, PinnedBench.slices, warm, times)
  }
}

extension PinnedReport.Period {
  fileprivate init(
    _ samples: [PinnedReport.Sample],
    _ begin: Int,
    _ end: Int,
    _ warm: UInt64,
    _ times: EventTimes.Times
  ) {
    let (before, after) = (samples[begin], samples[end])
    let elapsed = Double(after.at - before.at) / 1e9
    // Events are in the order in which they were due, and nearly in that of their commits.
    var latencies: [Double] = []
    var commits: [Double] = []
    var delays: [Double] = []
    var arrived = 0
    for number in times.committed.indices {
      if times.arrived[number] >= before.at, times.arrived[number] < after.at { arrived += 1 }
      guard times.committed[number] >= before.at, times.committed[number] < after.at else { continue }
      // Signed: the dispatcher may see a commit before the publisher hears of it.
      latencies.append((Double(times.arrived[number]) - Double(times.committed[number])) / 1e6)
      commits.append(Double(times.committed[number] - times.began[number]) / 1e6)
      if times.isOnTime[number] { delays.append(Double(times.began[number] - times.due[number]) / 1e6) }
    }
    fromSeconds = (Double(before.at) - Double(warm)) / 1e9
    toSeconds = (Double(after.at) - Double(warm)) / 1e9
    publishedPerSecond = Double(latencies.count) / elapsed
    deliveredPerSecond = Double(arrived) / elapsed
    (commitToReceipt, commit, timerDelay) = (Distribution(latencies), Distribution(commits), Distribution(delays))
    dispatcherMicroseconds = (after.dispatcherSeconds - before.dispatcherSeconds) * 1e6 / Double(arrived)
    postgresMicroseconds = (after.postgresSeconds - before.postgresSeconds) * 1e6 / Double(arrived)
    walBytes = (after.walBytes - before.walBytes) / Double(arrived)
    deadRows = after.deadRows
    megabytes = after.megabytes
    statements = (after.statements - before.statements).kinds.mapValues {
      PinnedReport.Statement(
        perSecond: $0.calls / elapsed,
        microseconds: $0.milliseconds * 1000 / $0.calls,
        buffers: $0.buffers / $0.calls,
        rows: $0.rows / $0.calls,
        walBytes: $0.walBytes / $0.calls
      )
    }
  }
}

extension PinnedReport {
  package var title: String {
    isPinned ? "pinned: a transaction holds xmin for \(seconds) s" : "pinned, without: no transaction is held open"
  }

  package var parts: [ReportPart] {
    let window = (first.toSeconds - first.fromSeconds).text(first.toSeconds < 30 ? 1 : 0)
    return [
      .lines([
        "\(rate) events/s, one a transaction, from \(connections) connections; one dispatcher; a receiver of raw sockets",
        "commits: the publishers' synchronous; the dispatcher's \(commitMode)",
        "windows of \(window) s, after a warm-up of \(warmUpSeconds.text(1)) s; latencies in ms, from the confirmed commit to the first byte",
        isPinned
          ? "the open transaction: REPEATABLE READ, with an id of its own, from before the first event to the last record; in the end \(pinnedTransactions.text(0)) transactions old"
          : "no transaction is held open: what changes here is the machine's doing",
      ]),
      .table(comparison(window)),
      .table(statements),
      .table(TableStatistics.table(tables, events: Double(conservation.pairs))),
      .lines([
        "lost: 0 of \(conservation.pairs) events; each arrived (\(repeated) of them again), compared number by number; "
          + "by the tables \(conservation.delivered) delivered, \(conservation.waiting) waiting, \(conservation.missing) missing",
        "dispatcher's peak memory: \(peakMegabytes.text(1)) MiB",
      ]),
      .table(timeline),
    ]
  }

  private func comparison(_ window: String) -> ReportTable {
    func row(_ name: String, _ digits: Int, _ value: (Period) -> Double) -> [String] {
      let (before, after) = (value(first), value(last))
      return [name, before.text(digits), after.text(digits), (after / before).text(3)]
    }
    func spread(_ slices: some Collection<Period>) -> String { Spread(slices.map(\.commitToReceipt.p99)).text(2) }
    let ends = PinnedBench.slicesPerWindow
    return ReportTable(
      columns: ["", "first \(window) s", "last \(window) s", "last / first"],
      rows: [
        row("delivered/s (aim 0.97)", 1, \.deliveredPerSecond),
        row("published/s", 1, \.publishedPerSecond),
        row("commit to receipt, p50", 2, \.commitToReceipt.p50),
        row("commit to receipt, p99 (aim 1.05)", 2, \.commitToReceipt.p99),
        ["its slices, median (lowest–highest)", spread(slices.prefix(ends)), spread(slices.suffix(ends)), ""],
        row("the commit itself, p50", 2, \.commit.p50),
        row("the commit itself, p99", 2, \.commit.p99),
        row("a sleeping thread's delay, p99", 2, \.timerDelay.p99),
        row("dispatcher CPU, µs a delivery", 1, \.dispatcherMicroseconds),
        row("PostgreSQL CPU, µs an event, publishing too", 1, \.postgresMicroseconds),
        row("WAL, B an event, publishing too", 0, \.walBytes),
        row("dispatcher's memory, MiB", 1, \.megabytes),
      ]
    )
  }

  /// By statement, server-side, with everything it calls.
  private var statements: ReportTable {
    ReportTable(
      columns: ["statement", "calls/s", "µs a call", "buffers a call", "WAL B a call"],
      rows: Set(first.statements.keys).union(last.statements.keys).sorted().map { kind in
        func both(_ digits: Int, _ value: (Statement) -> Double) -> String {
          [first, last].map { period in period.statements[kind].map { value($0).text(digits) } ?? "-" }
            .joined(separator: " → ")
        }
        return [
          kind, both(1, \.perSecond), both(1, \.microseconds), both(1, \.buffers), both(0, \.walBytes),
        ]
      }
    )
  }

  private var timeline: ReportTable {
    ReportTable(
      columns: [
        "from second", "published/s", "delivered/s", "p50", "p99", "max", "commit p99", "timer p99", "cut µs",
        "cut buffers", "record µs", "poll µs", "PostgreSQL µs", "dispatcher µs", "dead rows", "MiB",
      ],
      rows: slices.map { slice in
        [
          slice.fromSeconds.text(1), slice.publishedPerSecond.text(0), slice.deliveredPerSecond.text(0),
          slice.commitToReceipt.p50.text(2), slice.commitToReceipt.p99.text(2), slice.commitToReceipt.longest.text(1),
          slice.commit.p99.text(2), slice.timerDelay.p99.text(2), slice.statements["cut"]?.microseconds.text(0) ?? "-",
          slice.statements["cut"]?.buffers.text(1) ?? "-", slice.statements["record"]?.microseconds.text(0) ?? "-",
          slice.statements["poll"]?.microseconds.text(1) ?? "-", slice.postgresMicroseconds.text(1),
          slice.dispatcherMicroseconds.text(1), slice.deadRows.text(0), slice.megabytes.text(1),
        ]
      }
    )
  }
}
