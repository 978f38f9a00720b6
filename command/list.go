package command

var listRows = []Row{}
