import CFiber

/// Virtual time in microseconds, what happens when, and the fibers in which code that blocks runs. What falls on the same
/// moment happens in an order that chance decides.
final class Scheduler {
  private struct Entry {
    var at: Int
    var tie: UInt64
    var action: () -> Void
  }
  private(set) var now = 0
  private(set) var steps = 0
  let chance: Chance
  private var heap: [Entry] = []
  fileprivate(set) var running: Fiber?

  init(_ chance: Chance) { self.chance = chance }

  func at(_ time: Int, _ action: @escaping () -> Void) {
    var index = heap.count
    heap.append(Entry(at: max(time, now), tie: chance.bits(), action: action))
    while index > 0 {
      let parent = (index - 1) / 2
      guard isBefore(index, parent) else { break }
      heap.swapAt(index, parent)
      index = parent
    }
  }

  func after(_ delay: Int, _ action: @escaping () -> Void) { at(now + delay, action) }

  /// Makes the next step, unless none is due until then.
  func step(until end: Int) -> Bool {
    guard let first = heap.first, first.at <= end else { return false }
    now = first.at
    steps += 1
    let last = heap.removeLast()
    if !heap.isEmpty {
      heap[0] = last
      sink()
    }
    first.action()
    return true
  }

  private func isBefore(_ a: Int, _ b: Int) -> Bool {
    heap[a].at != heap[b].at ? heap[a].at < heap[b].at : heap[a].tie < heap[b].tie
  }

  private func sink() {
    var index = 0
    while true {
      var least = index
      let left = 2 * index + 1
      if left < heap.count, isBefore(left, least) { least = left }
      if left + 1 < heap.count, isBefore(left + 1, least) { least = left + 1 }
      if least == index { return }
      heap.swapAt(index, least)
      index = least
    }
  }

  /// Starts code that may block, in a fiber of its own, when its time has come.
  func spawn(after delay: Int = 0, _ body: @escaping () -> Void) {
    after(delay) { [self] in Fiber(self, body).resume() }
  }

  /// Blocks the fiber that runs for so long.
  func sleep(_ delay: Int) {
    let fiber = current()
    after(delay) { fiber.resume() }
    fiber.yield()
  }

  func current() -> Fiber {
    guard let running else { preconditionFailure("only a fiber can block") }
    return running
  }
}

/// Code on a stack of its own, which goes on when it is resumed and blocks when it yields.
final class Fiber {
  private let scheduler: Scheduler
  private var body: (() -> Void)?
  private var raw: OpaquePointer?

  init(_ scheduler: Scheduler, _ body: @escaping () -> Void) {
    self.scheduler = scheduler
    self.body = body
  }

  func resume() {
    if raw == nil {
      guard body != nil else { preconditionFailure("resumed after its end") }
      // The fiber owns itself while it runs.
      let argument = Unmanaged.passRetained(self).toOpaque()
      raw = cfiber_create({ Unmanaged<Fiber>.fromOpaque($0!).takeUnretainedValue().run() }, argument)
      precondition(raw != nil, "no memory for another fiber")
    }
    let outer = scheduler.running
    scheduler.running = self
    let ended = cfiber_resume(raw!) != 0
    scheduler.running = outer
    if ended {
      cfiber_destroy(raw!)
      Unmanaged.passUnretained(self).release()
    }
  }

  func yield() {
    precondition(scheduler.running === self, "only the fiber that runs can yield")
    cfiber_yield(raw!)
  }

  private func run() {
    let body = body
    self.body = nil
    body?()
  }
}

/// One fiber waits here until somebody signals or time is up.
final class Waiter {
  private let scheduler: Scheduler
  private var fiber: Fiber?
  private var isSignalled = false
  private var turn = 0

  init(_ scheduler: Scheduler) { self.scheduler = scheduler }

  /// Wakes who waits, or the next who would.
  func signal() {
    isSignalled = true
    wake()
  }

  private func wake() {
    guard let fiber else { return }
    self.fiber = nil
    turn += 1
    scheduler.after(0) { fiber.resume() }
  }

  /// Returns whether it was signalled; nil for ever.
  func wait(upTo timeout: Int?) -> Bool {
    if !isSignalled {
      precondition(fiber == nil, "one fiber a waiter")
      fiber = scheduler.current()
      turn += 1
      let mine = turn
      if let timeout {
        scheduler.after(timeout) { [self] in if turn == mine { wake() } }
      }
      scheduler.current().yield()
    }
    defer { isSignalled = false }
    return isSignalled
  }
}
