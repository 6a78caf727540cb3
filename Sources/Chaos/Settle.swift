/// When nothing new is published any more and nothing is disturbed: waits until all has come, or nothing comes for as long
/// as `patience`.
func settle(
  _ observer: Observer,
  expected: Int,
  patience: Duration,
  answered: () -> Int
) async throws {
  var last = (count: 0, at: ContinuousClock.now)
  while answered() < expected, last.at + patience > .now {
    let count = answered()
    if count > last.count { last = (count, .now) }
    try await Task.sleep(for: .milliseconds(50))
  }
  // Repetitions are still to come: whatever the database believes to be undone.
  let deadline = ContinuousClock.now + .seconds(30)
  while try await observer.int("(SELECT count(*) FROM outbox.batch) + (SELECT count(*) FROM outbox.delivery)") > 0,
    deadline > .now
  {
    try await Task.sleep(for: .milliseconds(50))
  }
}
