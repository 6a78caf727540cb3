/// One number of a run, by the name it has in reports.
package struct Figure: Sendable {
  package var name: String
  package var unit: String
  package var digits: Int
  package var value: Double

  init(_ name: String, _ unit: String, _ digits: Int, _ value: Double) {
    (self.name, self.unit, self.digits, self.value) = (name, unit, digits, value)
  }
}

extension [[Figure]] {
  /// Of runs that give the same figures: the median of each, with the lowest and the highest.
  func table(_ columns: [String]) -> ReportTable {
    ReportTable(
      columns: columns,
      rows: (first ?? []).enumerated().map { index, figure in
        let unit = figure.unit.isEmpty ? "" : ", \(figure.unit)"
        return [figure.name + unit, Spread(map { $0[index].value }).text(figure.digits)]
      }
    )
  }
}

/// A report that boils down to a few numbers, so that several runs can be put beside each other.
package protocol FigureReport: BenchReport {
  var machine: Machine { get }
  /// What was measured, in a line.
  var subject: String { get }
  var figures: [Figure] { get }
}

/// The same benchmark several times, each on a server of its own.
package struct Repeated<Single: Bench>: Bench where Single.Report: FigureReport {
  package var single: Single
  package var runs = 5
  package var progress: @Sendable (String) -> Void = { _ in }

  package init(version: String) { single = Single(version: version) }

  package init(_ single: Single, runs: Int) { (self.single, self.runs) = (single, runs) }

  package func run() async throws -> RepeatedReport<Single.Report> {
    var single = single
    single.progress = progress
    var reports: [Single.Report] = []
    for number in 1...max(1, runs) {
      progress("run \(number) of \(runs)")
      reports.append(try await single.run())
    }
    return RepeatedReport(runs: reports)
  }
}

package struct RepeatedReport<Single: FigureReport>: TabularReport {
  package var runs: [Single]
  package var machine: Machine { runs[0].machine }
  package var title: String { runs[0].subject }
  package var parts: [ReportPart] {
    [.table(runs.map(\.figures).table(["\(runs.count) runs", "median (lowest–highest)"]))]
  }
}
