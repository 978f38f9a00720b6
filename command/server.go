package command

var serverRows = []Row{}
