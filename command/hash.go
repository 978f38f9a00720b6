package command

var hashRows = []Row{}
