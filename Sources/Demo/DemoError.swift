/// Why the demo could not be run to its end: printed as it is.
package struct DemoError: Error, CustomStringConvertible {
  package var description: String

  init(_ description: String) { self.description = description }
}
