import Testing

@testable import Chaos

/// What an endurance run may do and still hold.
@Suite struct EnduranceReportTests {
  @Test func aRunThatStaysAsItWasHolds() {
    #expect(report().holds && report().trends.count == 4)
  }

  @Test func whatGrowsOrSlowsDownFails() {
    #expect(!report { $0[9].medianPerSecond *= 0.94 }.holds)
    #expect(!report { $0[9].dispatcherBytes = $0[0].dispatcherBytes * 112 / 100 }.holds)
    #expect(!report { $0[7].postgresBytes = $0[0].postgresBytes * 112 / 100 }.holds)
    #expect(!report { $0[7].sizes[0].indexBytes += 200_000 }.holds)
    // Days fill up first.
    #expect(report { ($0[0].sizes, $0[0].postgresBytes) = ([], 1) }.holds)
  }

  @Test func aRunTooShortToSettleIsJudgedByWhatArrivedAlone() {
    var short = report { tenths in for index in tenths.indices { tenths[index].seconds = 1 } }
    short.tenths[9].dispatcherBytes *= 10
    #expect(!short.isLongEnough && short.holds)
    short.lost = 1
    #expect(!short.holds)
  }

  @Test func whateverIsWrongFails() {
    let wrongs: [WritableKeyPath<EnduranceReport, Int>] = [
      \.lost, \.phantom, \.outOfOrder, \.unexplained, \.malformed, \.unbalanced,
    ]
    for wrong in wrongs {
      var report = self.report()
      report[keyPath: wrong] = 1
      #expect(!report.holds && report.markdown.contains("FAILED"))
    }
    var exceeded = report()
    exceeded.faults = [Injections(.fault(.kill))]
    #expect(exceeded.holds)
    exceeded.faults[0].exceeded = 1
    #expect(!exceeded.holds)
  }

  private func report(_ change: (inout [Tenth]) -> Void = { _ in }) -> EnduranceReport {
    var tenth = Tenth()
    tenth.deliveries = 1_000_000
    tenth.seconds = 100
    tenth.medianPerSecond = 10_000
    tenth.dispatcherBytes = 40_000_000
    tenth.postgresBytes = 300_000_000
    tenth.sizes = [.init(name: "event", tableBytes: 1_000_000, indexBytes: 100_000)]
    var report = EnduranceReport()
    report.tenths = [Tenth](repeating: tenth, count: 10)
    change(&report.tenths)
    return report
  }
}
