import Foundation
import HTTPDelivery
import OutboxStore
import Postgres
import Testing

@testable import Dispatcher

/// What a desk decides, call by call: for what whole systems show but once in ten thousand seeds.
@Suite struct DeskTests {
  @Test func whatIsHeldIsNotComparedWhileARecordIsUnderWay() {
    let desk = Desk(limits: Desk.Limits(), egress: EgressPolicy())
    _ = desk.granted(1, until: desk.now + .seconds(3600))
    #expect(desk.beginRecord())
    desk.doubt()
    #expect(desk.beginResync() == nil)
    desk.endRecord()
    #expect(desk.beginResync()?.number == 1)
    // Nor the other way round.
    #expect(!desk.beginRecord())
    desk.resynced()
    #expect(desk.beginRecord())
  }

  /// Once it is recorded the next of its key may be due: nobody must sleep through that.
  @Test func nobodyWatchesWhileAnOutcomeIsUnrecorded() throws {
    let quiet = Duration.seconds(60)
    let surroundings = Surroundings(now: { quiet }, random: { 0.5 }, bell: { Bell() })
    let desk = Desk(limits: Desk.Limits(), egress: EgressPolicy(), surroundings: surroundings)
    _ = desk.granted(1, until: quiet + .seconds(3600))
    desk.looked([])
    _ = desk.took(nil, dispatcher: 1)
    guard case .watch = desk.nextIntake() else {
      Issue.record("there is nothing to do, and nobody watches")
      return
    }
    // Of an endpoint that is not known it goes back untried, and that is to be recorded.
    let held = Held(
      event: OutboxEvent(id: UUID(), type: "t", createdAt: Timestamp(microsecondsSince2000: 0), payload: []),
      endpoint: 7,
      batch: nil,
      attempts: 0,
      age: .zero,
      takenAt: quiet,
      dispatcher: 1
    )
    #expect(desk.accept([held]).isEmpty)
    guard case .wait = desk.nextIntake() else {
      Issue.record("watches while an outcome waits to be recorded")
      return
    }
    let work = try #require(desk.takeOutcomes(atLeast: 1))
    guard case .wait = desk.nextIntake() else {
      Issue.record("watches while an outcome is being recorded")
      return
    }
    _ = desk.recorded(work, [])
    guard case .claim(let endpoints, _, _) = desk.nextIntake() else {
      Issue.record("it is due again, and nobody claims it")
      return
    }
    #expect(endpoints == [7])
  }
}
