import Testing

@testable import DeliveryCore

/// What is asked when there is nothing to do, and how often.
extension IntakePlanTests {
  @Test func pollsLessAndLessOftenWhileNothingComes() {
    var plan = looked()
    plan.cut(events: 5, more: false, at: start)
    #expect(plan.next(flight(), at: start) == .wait(.milliseconds(1)))
    for (quiet, pause) in [(16, 1), (160, 10), (240, 15)] {
      let now = start + .milliseconds(quiet)
      plan.cut(events: nil, more: false, at: now)
      #expect(plan.next(flight(), at: now) == .wait(.milliseconds(pause)), "\(quiet)")
    }
    plan.cut(events: nil, more: false, at: start + .milliseconds(995))
    #expect(plan.next(flight(), at: start + .milliseconds(995)) == .wait(.milliseconds(5)))
  }

  /// The server may keep us waiting, but not beyond what else is to be done.
  @Test func leavesTheWatchToTheServerWhenNothingElseIsToBeExpected() {
    let quiet = start + .milliseconds(400)
    func idle(_ waiting: [(endpoint: Int64, dueIn: Duration)] = []) -> IntakePlan {
      var plan = looked(waiting)
      plan.cut(events: 5, more: false, at: start)
      plan.cut(events: nil, more: false, at: quiet)
      return plan
    }
    let pause = Duration.milliseconds(16)
    var plan = idle()
    #expect(plan.next(flight(), at: quiet) == .watch(every: pause, upTo: .milliseconds(200)))
    #expect(plan.next(flight([1: 1]), at: quiet) == .wait(pause), "what is in flight may need us")
    #expect(plan.next(flight(), mayWatch: false, at: quiet) == .wait(pause), "what is recorded may need us")
    plan.polled(hasNews: false, at: start + .milliseconds(900))
    let soon = start + .milliseconds(900)
    #expect(plan.next(flight(), at: soon) == .watch(every: pause, upTo: .milliseconds(100)), "then comes a look")
    plan.polled(hasNews: true, at: soon)
    guard case .cut = plan.next(flight(), at: soon) else {
      Issue.record("there is news, and no cut")
      return
    }
    plan = idle([(7, .milliseconds(450))])
    #expect(plan.next(flight(), at: quiet) == .watch(every: pause, upTo: .milliseconds(50)), "a retry is due")
    plan = idle([(7, .milliseconds(410))])
    #expect(plan.next(flight(), at: quiet) == .wait(pause))
  }

  @Test func pollsInsteadOfCuttingUntilSomethingHappens() {
    var plan = looked()
    plan.cut(events: 5, more: false, at: start)
    let first = start + .milliseconds(1)
    #expect(plan.next(flight(), at: first) == .poll)
    plan.polled(hasNews: false, at: first)
    #expect(plan.next(flight(), at: first) == .wait(.milliseconds(1)))
    plan.polled(hasNews: true, at: first + .milliseconds(1))
    guard case .cut = plan.next(flight(), at: first + .milliseconds(1)) else {
      Issue.record("there is news, and no cut")
      return
    }
    // Whatever polls say, a cut comes at least once a second.
    plan.cut(events: nil, more: false, at: start)
    let later = start + .seconds(1)
    plan.looked([], at: later)
    guard case .cut = plan.next(flight(), at: later) else {
      Issue.record("no cut after a second")
      return
    }
  }
}
