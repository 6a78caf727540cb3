/// Why a process or a directory of a show or a trial could not be had: printed as it is.
package struct RigError: Error, CustomStringConvertible {
  package var description: String

  init(_ description: String) { self.description = description }
}
