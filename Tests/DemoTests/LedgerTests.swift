import Foundation
import Testing

@testable import Demo

struct LedgerTests {
  let start = ContinuousClock.now
  let ids = (0..<4).map { _ in UUID() }

  /// Two events of one key, delivered to the ordered endpoint in order, the first after a 500.
  private func ledger(_ change: (inout Ledger) -> Void = { _ in }) -> Ledger {
    let arrivals = [(ids[0], 500), (ids[0], 200), (ids[1], 200)].enumerated().map { index, arrival in
      Arrival(id: arrival.0, status: arrival.1, at: start + .seconds(index))
    }
    var ledger = Ledger(
      published: [(ids[0], "k"), (ids[1], "k")],
      rolledBack: [ids[2]],
      accounts: [
        Ledger.Account(
          target: .warehouse,
          subscribed: [ids[0], ids[1]],
          arrivals: arrivals,
          delivered: [ids[0], ids[1]]
        )
      ],
      killedAt: start + .seconds(3)
    )
    change(&ledger)
    return ledger
  }

  private func arrive(_ id: UUID, after seconds: Double) -> Arrival {
    Arrival(id: id, status: 200, at: start + .seconds(seconds))
  }

  @Test func accountsThatAgreeHaveNoDifferences() {
    #expect(ledger().differences() == [])
    #expect(ledger().accounts[0].lost.isEmpty)
  }

  @Test func everyDisagreementIsNamed() {
    func says(_ words: String, _ change: (inout Ledger) -> Void) {
      #expect(ledger(change).differences().contains { $0.contains(words) }, "\(words)")
    }
    says("received, though rolled back") { $0.accounts[0].arrivals.append(arrive(ids[2], after: 4)) }
    says("received, though never published") { $0.accounts[0].arrivals.append(arrive(ids[3], after: 4)) }
    says("published, but never received") { $0.accounts[0].arrivals.removeLast() }
    says("but the receiver never answered 200") { $0.accounts[0].arrivals.removeLast() }
    says("answered 200, but not delivered") { $0.accounts[0].delivered.removeAll() }
    says("another body") { $0.accounts[0].arrivals[1].bodyIsSame = false }
    says("though the endpoint works") { $0.accounts[0].dead[ids[0]] = "exhausted" }
    says("still waiting") { $0.accounts[0].waiting.insert(ids[0]) }
    says("without a valid signature") { $0.accounts[0].refusedCount = 1 }
    says("out of order") { $0.accounts[0].arrivals.swapAt(0, 2) }
    says("not dead-lettered") { $0.accounts[0].target = .partner }
    says("dead-lettered without a 410") {
      $0.accounts[0].target = .legacy
      $0.accounts[0].dead[ids[0]] = "gone"
    }
  }

  @Test func whatWasNeverReceivedIsLost() {
    #expect(ledger { $0.accounts[0].arrivals.removeLast() }.accounts[0].lost == [ids[1]])
  }

  @Test func anOldEventAfterItsSuccessorIsOutOfOrder() {
    let found = ledger { $0.accounts[0].arrivals.append(arrive(ids[0], after: 4)) }
    #expect(found.outOfOrder(found.accounts[0].arrivals) == [ids[0]])
  }

  @Test func duplicatesAreExplainedByTheKillOnlyIfTheyStraddleIt() {
    let explained = ledger { $0.accounts[0].arrivals.append(arrive(ids[1], after: 5)) }
    #expect(explained.duplicates(explained.accounts[0]) == (1, 1))
    let unexplained = ledger { $0.accounts[0].arrivals.append(arrive(ids[1], after: 2.5)) }
    #expect(unexplained.duplicates(unexplained.accounts[0]) == (1, 0))
  }
}
